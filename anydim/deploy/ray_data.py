"""Ray Data: `anydim embed` over the machines of a Ray cluster, with one engine an actor.

The job is the same: one task reads the input on the machine of the command and cuts it into the same shards, actors do
the work of a shard, and what they send back is kept and put together here as it is without a cluster. When an actor
dies Ray starts another and hands it the shard again. It knows Ray Data and the job; it knows no command line.

Needs the extra ray. Source: Ray Data's custom data sources and stateful transforms.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import ray
from ray import cloudpickle
from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata

from anydim.deploy.cluster import clear_errors, connected, lack_of, quiet
from anydim.deploy.pool import LOCAL, Pool, runtime_of_actors
from anydim.embedder import Embedder
from anydim.errors import ComputeFailed, ConfigError, Unavailable
from anydim.offline.disk import clear_disk_errors
from anydim.offline.embed import EmbedJob, EmbedWork
from anydim.offline.job import Done, all_shards, check_output, finish_job, opened_parts
from anydim.offline.records import STDIN, read_records
from anydim.offline.shard_work import Facts
from anydim.offline.shards import Parts
from anydim.offline.writers import arrow

_LOG: Final = logging.getLogger(__name__)
_AT_ONCE: Final = 2  # shards in an actor's hands: one is tokenised, or waits, while the engine has the other
_MOST_TRIES: Final = 5  # of a shard; Ray would hand one that kills its actors to the next for ever
_NEXT: Final = "the same command with --resume goes on"


def embed_on_ray(settings: Mapping[str, Any], job: EmbedJob, pool: Pool, progress: Callable[[Done], None]) -> Done:
    """Do a job on a cluster; what it leaves is what ``run_job`` leaves, byte for byte on machines of one kind.

    Args:
        settings: of the model and the engine by name, as ``Embedder`` takes them.
        job: what is asked for.
        pool: the actors.
        progress: called after every shard, in the order in which they are done.

    Raises:
        ConfigError: there is no cluster or too little of it, the output does not fit, or something is in its way.
        InvalidRequest: an input cannot be read at all, or a field is refused.
        MissingExtra: a package is missing.
        ComputeFailed: actors died too often.
        StorageFailed: the disk is full, or does not take the output.
    """
    check_output(job)
    if STDIN in job.inputs:
        raise ConfigError("standard input cannot be read twice, as a cluster may have to: name a file")
    job = replace(job, inputs=[_absolute(name) for name in job.inputs], output=job.output.absolute())
    files = {name: _absolute(settings[name]) for name in ("model", "projection") if settings.get(name)}
    settings = {**settings, **files}
    read_records(job.inputs, job.reading)  # what is not there is said before anything starts
    with connected(pool.address), clear_errors(_NEXT):
        quiet()
        gpus = 0 if settings.get("device") in ("cpu", "mps") else settings.get("tp", 1)
        return _run(settings, job, _sized(pool, gpus), progress)


def _run(settings: Mapping[str, Any], job: EmbedJob, pool: Pool, progress: Callable[[Done], None]) -> Done:
    needs = {"num_cpus": pool.cpus, "num_gpus": pool.gpus, "runtime_env": runtime_of_actors(os.environ)}
    facts: Facts = ray.get(ray.remote(**needs)(_facts).remote(settings, job))
    with opened_parts(job, facts) as (parts, finished):
        tries = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(Tries).remote()
        shards = _dataset(job, finished).map_batches(
            ShardActor,
            fn_constructor_args=(settings, job, facts, tries),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                size=pool.actors,
                max_tasks_in_flight_per_actor=_AT_ONCE,
                max_concurrent_calls_per_actor=_AT_ONCE,
                enable_true_multi_threading=True,
            ),
            **needs,
        )
        done, began = Done(dim=facts.dim), time.perf_counter()
        for row in shards.iter_batches(batch_size=1, batch_format="pyarrow"):
            with clear_disk_errors(job.output):
                _keep(row, parts, done)
            done.seconds = time.perf_counter() - began
            progress(done)
        with clear_disk_errors(job.output):
            finish_job(job, parts, facts, done)
        done.seconds = time.perf_counter() - began
        return done


def _keep(row: Any, parts: Parts, done: Done) -> None:
    """One shard's row, from its actor."""
    number, rows, texts, tokens = (row.column(name)[0].as_py() for name in ("number", "rows", "texts", "tokens"))
    done.shards = max(done.shards, number + 1)
    data = row.column("data")[0].as_buffer()
    if data is None:
        done.earlier_rows += rows
        return
    parts.put(number, data)
    done.own_rows += rows
    done.texts += texts
    done.tokens += tokens


def _facts(settings: Mapping[str, Any], job: EmbedJob) -> Facts:
    """What the job has to do with the model on a machine of the cluster; runs there."""
    with Embedder(show_progress=False, **settings) as embedder:
        return EmbedWork(embedder, job).facts


class Tries:
    """How often each shard was begun."""

    def __init__(self) -> None:
        """None was."""
        self._tries: Counter[int] = Counter()

    def begin(self, number: int) -> int:
        """Count one try more; all tries of that shard."""
        self._tries[number] += 1
        return self._tries[number]


class ShardActor:
    """One engine, and the work on one shard after another."""

    def __init__(self, settings: Mapping[str, Any], job: EmbedJob, facts: Facts, tries: Any) -> None:
        """Load the model.

        Raises:
            ConfigError: this machine would make other vectors than the job's first one.
        """
        self._embedder = Embedder(show_progress=False, **settings)
        self._work = EmbedWork(self._embedder, job)
        self._tries = tries
        _compare(facts.identity, self._work.facts.identity)

    def __call__(self, batch: Any) -> Any:
        """A shard's row with its records -> its row with its vectors; one that is there already passes through."""
        number, rows, packed = (batch.column(name)[0].as_py() for name in ("number", "rows", "records"))
        if packed is None:
            return _row(number=number, rows=rows, texts=0, tokens=0, data=None)
        records = cloudpickle.loads(packed)
        if ray.get(self._tries.begin.remote(number)) > _MOST_TRIES:
            rows_named = f"rows {records[0].row} to {records[-1].row}"
            raise ComputeFailed(f"{_MOST_TRIES} actors died with {rows_named} in their hands")
        shard = self._work.prepare(number, records)
        try:
            found = self._work.submit(shard).result()
        except Unavailable as error:  # the device is lost: another process may have better luck
            _LOG.critical("%s", error)
            os._exit(1)
        data = self._work.encode(shard, found)
        return _row(number=number, rows=rows, texts=len(shard.items), tokens=shard.tokens, data=data.to_pybytes())


class _Shards(Datasource):  # type: ignore[misc]  # Ray's class has no types here
    """The shards of a job, a row each, read in order by one task that runs beside the command."""

    def __init__(self, job: EmbedJob, finished: frozenset[int]) -> None:
        super().__init__()
        self._job = job
        self._finished = finished

    @property
    def supports_distributed_reads(self) -> bool:
        """False: files are read where the command runs."""
        return False

    def estimate_inmemory_data_size(self) -> int | None:
        """Not known."""
        return None

    def get_read_tasks(self, parallelism: int, *args: Any, **options: Any) -> list[Any]:
        """One task: a row's number counts through all files."""
        job, finished = self._job, self._finished
        size = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(lambda: _read(job, finished), size)]


def _dataset(job: EmbedJob, finished: frozenset[int]) -> Any:
    """A block a shard, so that the death of an actor costs no more than those in its hands."""
    context = DataContext.get_current()
    context.target_max_block_size = 1
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return ray.data.read_datasource(_Shards(job, finished), override_num_blocks=1, num_cpus=0)


def _read(job: EmbedJob, finished: frozenset[int]) -> Iterator[Any]:
    records = read_records(job.inputs, job.reading)
    for number, shard, is_there in all_shards(records, job, Parts(job.output), finished):
        yield _row(number=number, rows=len(shard), records=None if is_there else cloudpickle.dumps(shard))


def _row(**values: int | bytes | None) -> Any:
    """A table of one row; bytes may be many."""
    pa = arrow()
    kinds = {name: pa.int64() if isinstance(value, int) else pa.large_binary() for name, value in values.items()}
    return pa.table({name: pa.array([value], kinds[name]) for name, value in values.items()})


def _sized(pool: Pool, own_gpus: int) -> Pool:
    """The pool with its numbers filled in from what the cluster has; ``own_gpus`` is what an engine uses there.

    Raises:
        ConfigError: this machine alone is the cluster, and it has too little.
    """
    has = ray.cluster_resources()
    gpus = pool.gpus if pool.gpus is not None else own_gpus if has.get("GPU") else 0
    machines = sum(1 for node in ray.nodes() if node["Alive"])
    actors = pool.actors or max(1, int(has.get("GPU", 0) // gpus) if gpus else machines)
    if told := lack_of({"GPU": actors * gpus, "CPU": actors * pool.cpus}):
        if pool.address == LOCAL:
            raise ConfigError(f"{actors} actors need more than this machine has: {told}")
        _LOG.warning("%d actors need more than the cluster has now: %s; waiting for more machines", actors, told)
    return replace(pool, actors=actors, gpus=gpus)


def _compare(first: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    differs = sorted(name for name in {*first, *here} if first.get(name) != here.get(name))
    if differs:
        told = ", ".join(f"{name} is {first.get(name)!r} on one and {here.get(name)!r} on another" for name in differs)
        raise ConfigError(f"the machines of the cluster would make different vectors: {told}")


def _absolute(name: str) -> str:
    """A path for a process that runs elsewhere; addresses, and names that are no files here, stay as they are."""
    if "://" in name:
        return name
    path = Path(name).expanduser()
    anchor = path if not any(sign in name for sign in "*?[") else path.parent
    return str(path.absolute()) if anchor.exists() else name

"""Job: one call of `anydim embed` or `anydim rerank`, from records to a file of what was made of them, by shards.

A shard's texts are tokenised while the engine works on the shards before, sorted by length, and handed to the engine as
one group: its batches then depend on the shard and nothing else, so that a job that was stopped and goes on writes the
same bytes. It knows records, shards and a Work; it knows no models and no command line.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from anydim.errors import AnydimError, ConfigError
from anydim.offline.ahead import made_ahead
from anydim.offline.disk import clear_disk_errors
from anydim.offline.records import Reading, Record, is_input, read_records
from anydim.offline.shard_work import Facts, Shard, Work
from anydim.offline.shards import Failure, Parts
from anydim.offline.writers import ROW, WRITERS, arrow
from anydim.types import Output


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every kind of job is asked for.

    Attributes:
        inputs: files, folders, globs, addresses, or ``-``.
        output: the file to write; its end says the format, see writers.WRITERS.
        reading: how rows are read.
        shard_texts: most texts of a shard: what a crash may lose.
        shard_characters: a shard of so many characters ends sooner, so that memory stays flat.
        resume: go on with an unfinished job.
        overwrite: begin anew where an output or an unfinished job is.
    """

    columns: ClassVar[Sequence[str]] = (ROW,)
    """The output's own columns, which no kept field may be named like."""

    inputs: Sequence[str]
    output: Path
    reading: Reading = field(default_factory=Reading)
    shard_texts: int = 8192
    shard_characters: int = 16 << 20
    resume: bool = False
    overwrite: bool = False

    def reading_facts(self) -> dict[str, Any]:
        """What of the reading changes the output."""
        return {
            **self.reading.take.facts(),
            "keep_columns": list(self.reading.keep),
            "input_format": self.reading.format,
            "shard_texts": self.shard_texts,
        }


@dataclass(slots=True)
class Done:
    """What was done so far.

    Attributes:
        earlier_rows: rows that earlier runs have done.
        own_rows: rows that this run has done.
        failed: rows of which nothing was made.
        first_failure: the place of the first of them, and why.
        texts: texts (or pairs) that this run has given to the engine.
        tokens: tokens of these.
        seconds: since the run began.
        dim: components of a vector.
        shards: shards read, those of earlier runs included.
    """

    earlier_rows: int = 0
    own_rows: int = 0
    failed: int = 0
    first_failure: str = ""
    texts: int = 0
    tokens: int = 0
    seconds: float = 0.0
    dim: int = 0
    shards: int = 0

    @property
    def rows(self) -> int:
        """Rows that are done."""
        return self.earlier_rows + self.own_rows


def run_job(work: Work, job: Job, progress: Callable[[Done], None]) -> Done:
    """Do the job; beside the output it leaves OUTPUT.manifest.json, and OUTPUT.errors.jsonl where rows failed.

    Args:
        work: the model, and what is made of a shard.
        job: what is asked for.
        progress: called after every shard.

    Raises:
        ConfigError: the output does not fit, or something is in its way.
        InvalidRequest: an input cannot be read at all.
        MissingExtra: a package is missing.
        StorageFailed: the disk is full, or does not take it.
    """
    check_output(job)
    records = read_records(job.inputs, job.reading)
    done = Done(dim=work.facts.dim)
    began = time.perf_counter()
    with clear_disk_errors(job.output), opened_parts(job, work.facts) as (parts, finished), parts.growing():
        pending = _unfinished(all_shards(records, job, parts, finished), done)
        with closing(_through(work, pending)) as through:
            for shard, found in through:
                parts.put(shard.number, work.encode(shard, found))
                done.own_rows += len(shard.records)
                done.texts += len(shard.items)
                done.tokens += shard.tokens
                done.seconds = time.perf_counter() - began
                progress(done)
        finish_job(job, parts, work.facts, done)
    done.seconds = time.perf_counter() - began
    return done


@contextmanager
def opened_parts(job: Job, facts: Facts) -> Iterator[tuple[Parts, frozenset[int]]]:
    """The job's shards, which are its own meanwhile, and the numbers of those that are there already.

    Raises:
        ConfigError: as Parts.open.
    """
    parts = Parts(job.output)
    try:
        with clear_disk_errors(job.output):
            finished = parts.open(facts.identity, job.resume, job.overwrite)
        yield parts, finished
    finally:
        parts.release()


def check_output(job: Job) -> None:
    """Whether the output can be written at all, before any work is done.

    Raises:
        ConfigError: its name says no known format, it is one of the inputs, a kept field is named like a column, or
            something is in its way.
        InvalidRequest: an input is not there.
        MissingExtra: a package is missing.
    """
    if job.output.suffix not in WRITERS:
        raise ConfigError(f"{job.output}: the name must end in one of {', '.join(WRITERS)}")
    for name in job.reading.keep:
        if name in job.columns:
            raise ConfigError(f"--keep-columns {name}: the output has a column {name} of its own; rename the field")
    if job.output.is_file() and is_input(job.output, job.inputs, job.reading):
        raise ConfigError(f"{job.output} is one of the inputs: name another output")
    arrow()
    with clear_disk_errors(job.output):
        Parts(job.output).check_way(job.resume, job.overwrite)


def all_shards(
    records: Iterable[Record], job: Job, parts: Parts, finished: Container[int]
) -> Iterator[tuple[int, list[Record], bool]]:
    """Every shard of the input with its number, and whether it is there already.

    Raises:
        ConfigError: one that is there came from other rows.
    """
    for number, shard in enumerate(_shards(records, job.shard_texts, job.shard_characters)):
        is_there = number in finished
        if is_there:
            parts.check(number, shard)
            parts.found(number)
        yield number, shard, is_there


def finish_job(job: Job, parts: Parts, facts: Facts, done: Done) -> None:
    """Put the shards together, write what stands beside the output, and forget them.

    Raises:
        ConfigError: there is no shard.
        MissingExtra: a package is missing.
    """
    if not done.shards:
        parts.remove()
        raise ConfigError("the input holds no row")
    digest = parts.assemble(done.shards, done.rows)
    done.failed, done.first_failure = _leave_errors(job, parts.failures(done.shards))
    _leave_manifest(job, facts, done, digest)
    parts.remove()


def _unfinished(shards: Iterable[tuple[int, list[Record], bool]], done: Done) -> Iterator[tuple[int, list[Record]]]:
    """The shards that are still to be done; the others count as done."""
    for number, shard, is_there in shards:
        done.shards = number + 1
        if is_there:
            done.earlier_rows += len(shard)
        else:
            yield number, shard


def _shards(records: Iterable[Record], most: int, characters: int) -> Iterator[list[Record]]:
    """Records in lists of so many texts, or of so many characters; the input alone decides where one ends."""
    shard: list[Record] = []
    texts = size = 0
    for record in records:
        shard.append(record)
        texts += max(1, len(record.texts))
        size += sum(map(len, record.texts))
        if texts >= most or size >= characters:
            yield shard
            shard, texts, size = [], 0, 0
    if shard:
        yield shard


Running = deque[tuple[Shard, Future[list[Output]]]]
"""Shards that the engine has, in their order."""


def _through(work: Work, pending: Iterator[tuple[int, list[Record]]]) -> Generator[tuple[Shard, Sequence[Output]]]:
    """Each shard with its Outputs. While the engine has one the next waits there, so that it is never idle; meanwhile
    the one after is tokenised and the one before is written.
    """
    running: Running = deque()
    with made_ahead(work.prepare(number, records) for number, records in pending) as begin:
        try:
            yield from _submitted(work, begin, running)
            yield from _finished(running, 0)
        except AnydimError:  # of the input or of the engine: what was computed before is kept
            yield from _finished(running, 0)
            raise
        finally:  # after Ctrl-C above all: the shards at hand are lost, and no other
            for _, future in running:
                future.cancel()


def _submitted(
    work: Work, begin: Callable[[], Future[Shard | None]], running: Running
) -> Iterator[tuple[Shard, Sequence[Output]]]:
    """Hand over every shard, and give those that are done but for the last."""
    following: Future[Any] = begin()
    while True:
        if running:  # the input may pause: what is done meanwhile does not wait for it
            wait([following, running[0][1]], return_when=FIRST_COMPLETED)
            if not following.done():
                yield from _finished(running, 0)
        shard = following.result()
        if shard is None:
            return
        following = begin()
        running.append((shard, work.submit(shard)))
        yield from _finished(running, 1)


def _finished(running: Running, left: int) -> Iterator[tuple[Shard, Sequence[Output]]]:
    """The first shards with their Outputs, until ``left`` are left."""
    while len(running) > left:
        shard, future = running[0]
        outputs = future.result()
        running.popleft()
        yield shard, outputs


def _leave_errors(job: Job, failures: Iterable[Failure]) -> tuple[int, str]:
    """The errors file, where there is anything to say in it; how many rows failed, and the first of them."""
    errors = job.output.with_name(job.output.name + ".errors.jsonl")
    count, first = 0, ""
    with errors.open("wb") as file:
        for failure in failures:
            file.write(failure.line())
            first = first or f"{failure.where}: {failure.error}"
            count += 1
    if not count:
        errors.unlink()
    return count, first


def _leave_manifest(job: Job, facts: Facts, done: Done, digest: str | None) -> None:
    manifest = {
        **facts.identity,
        "revision": facts.revision,
        "inputs": list(job.inputs),
        "output": job.output.name,
        "output_sha256": digest,
        "rows": done.rows,
        "failed": done.failed,
        "shards": done.shards,
    }
    told = job.output.with_name(job.output.name + ".manifest.json")
    told.write_text(json.dumps(manifest, indent=1) + "\n")

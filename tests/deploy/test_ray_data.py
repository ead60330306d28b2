"""`anydim embed --ray` on a real cluster: the same bytes as without one, whatever dies on the way."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.ipc
import pytest
import torch
from click.testing import CliRunner

from anydim import Embedder
from anydim.cli.main import make_program
from anydim.deploy.pool import Pool
from anydim.deploy.ray_data import ShardActor, Tries, embed_on_ray
from anydim.errors import ComputeFailed, ConfigError, InvalidRequest
from anydim.offline.embed import EmbedJob, EmbedWork
from anydim.offline.job import Done, run_job
from anydim.offline.records import Reading, Record
from tests.deploy.conftest import processes_named, wait_until
from tests.offline.small_memory import LONGEST, small_memory

ROWS = 200
SHARD = 10
ACTOR = "MapWorker(MapBatches(ShardActor))"
SETTINGS = {"device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def embedder(starter_folder: Path) -> Iterator[Embedder]:
    before = torch.get_num_threads()
    with Embedder(str(starter_folder), **SETTINGS, show_progress=False) as opened:
        yield opened
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> EmbedJob:
    """Rows of several lengths, one without text and one that is no JSON."""
    return job_of(tmp_path_factory.mktemp("rows"), 23)


def job_of(folder: Path, words: int) -> EmbedJob:
    """A job of rows with up to so many words."""
    rows = [{"id": n, "text": f"text number {n} " + "word " * (n % words)} for n in range(ROWS)]
    rows[17] = {"id": 17, "text": ""}
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "nonsense\n")
    return EmbedJob(
        inputs=[str(folder / "in.jsonl")],
        output=folder / "out.parquet",
        reading=Reading(keep=("id",)),
        shard_texts=SHARD,
        output_dim=64,
    )


@pytest.fixture(scope="module")
def wanted(embedder: Embedder, job: EmbedJob) -> dict[str, bytes]:
    """What the job leaves without a cluster, by the ends of the files' names."""
    run_job(EmbedWork(embedder, job), job, lambda done: None)
    return taken(job)


def bounds_of(process: psutil.Process) -> tuple[str, str]:
    """How many shapes of products its libraries keep: oneDNN, and torch around it."""
    told = process.environ()
    return told.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY", ""), told.get("LRU_CACHE_CAPACITY", "")


def taken(job: EmbedJob) -> dict[str, bytes]:
    """The bytes of all that a job has left, which is then removed."""
    left = sorted(job.output.parent.glob("out.*"))
    found = {path.name: path.read_bytes() for path in left}
    for path in left:
        path.unlink()
    return found


def test_an_actor_that_is_killed_changes_nothing(
    cluster: str,
    embedder: Embedder,
    starter_folder: Path,
    job: EmbedJob,
    wanted: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(done: Done) -> None:
        if done.shards > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job(EmbedWork(embedder, job), job, stop)
    parts = Path(f"{job.output}.parts")
    (parts / "shard-000001.arrow").unlink()  # actors finish in any order
    there = len(list(parts.glob("shard-*")))
    killed: list[int] = []
    bounds: set[tuple[str, str]] = set()
    seen: list[Done] = []
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "77")
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)

    def kill_one(done: Done) -> None:
        seen.append(replace(done))
        if done.own_rows >= 3 * SHARD and not killed:
            bounds.update(bounds_of(each) for each in processes_named(ACTOR))
            victim = processes_named(ACTOR)[0]
            killed.append(victim.pid)
            victim.kill()

    settings = {"model": str(starter_folder), **SETTINGS}
    done = embed_on_ray(settings, replace(job, resume=True), Pool(address=cluster, actors=2), kill_one)
    assert killed
    assert bounds == {("128", "77")}  # a job's own bound, and what the command's environment says
    assert taken(job) == wanted
    assert done.earlier_rows == there * SHARD
    assert (done.rows, done.failed, done.shards) == (ROWS + 1, 2, ROWS // SHARD + 1)
    assert [each.rows for each in seen] == sorted({each.rows for each in seen})  # each shard came once
    assert wait_until(lambda: not processes_named(ACTOR))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_cleans_up_and_the_job_goes_on_without_a_cluster(
    cluster: str, embedder: Embedder, starter_folder: Path, tmp_path: Path, number: signal.Signals
) -> None:
    job = job_of(tmp_path, 200)  # long enough to be interrupted, however late the signal comes
    words = [sys.executable, "-m", "anydim", "embed", *job.inputs, "-o", str(job.output), "--ray", cluster]
    words += ["--model", str(starter_folder), "--device", "cpu", "--threads", "1", "--keep-columns", "id"]
    words += ["--shard-texts", str(SHARD), "--output-dim", "64", "--ray-actors", "1"]
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    parts = Path(f"{job.output}.parts")
    wait_until(lambda: any(parts.glob("shard-*.arrow")) or running.poll() is not None, 120)
    running.send_signal(number)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 128 + number, said
    assert "--resume goes on" in said
    assert "received at time" not in said  # Ray's own words for it
    assert wait_until(lambda: not processes_named(ACTOR))
    assert list(parts.glob("shard-*.arrow"))
    run_job(EmbedWork(embedder, job), replace(job, resume=True), lambda done: None)
    resumed = taken(job)
    run_job(EmbedWork(embedder, job), replace(job, overwrite=True), lambda done: None)
    assert resumed == taken(job)


def test_what_cannot_work_is_said_in_our_own_words(cluster: str, starter_folder: Path, job: EmbedJob) -> None:
    settings, pool = {"model": str(starter_folder), **SETTINGS}, Pool(address=cluster, actors=1)
    with pytest.raises(InvalidRequest, match="output_dim must be a multiple of 32"):  # from a worker
        embed_on_ray(settings, replace(job, output_dim=33), pool, lambda done: None)
    with pytest.raises(InvalidRequest, match=r"missing\.jsonl does not exist"):
        embed_on_ray(settings, replace(job, inputs=["missing.jsonl"]), pool, lambda done: None)
    with pytest.raises(ConfigError, match="standard input"):
        embed_on_ray(settings, replace(job, inputs=["-"]), pool, lambda done: None)
    with pytest.raises(ConfigError, match=r"no Ray cluster at 127\.0\.0\.1:1: "):
        embed_on_ray(settings, job, replace(pool, address="127.0.0.1:1"), lambda done: None)
    with pytest.raises(ConfigError, match="ray job submit"):
        embed_on_ray(settings, job, replace(pool, address="ray://127.0.0.1:10001"), lambda done: None)
    assert not Path(f"{job.output}.parts").exists()


def test_a_text_that_an_actors_memory_does_not_hold_costs_its_row_alone(
    cluster: str, starter_folder: Path, tmp_path: Path
) -> None:
    import ray

    job = job_of(tmp_path, 3)
    with small_memory(), Embedder(str(starter_folder), **SETTINGS, show_progress=False) as small:
        facts = EmbedWork(small, job).facts
        actor = ShardActor({"model": str(starter_folder), **SETTINGS}, job, facts, ray.remote(Tries).remote())
    records = [Record(row, f"in.jsonl:{row + 1}", (text,)) for row, text in enumerate(["one", "word " * 300, "two"])]
    row = pa.table({"number": [0], "rows": [3], "records": [ray.cloudpickle.dumps(records)]})
    made = actor(row)
    assert made.column("texts")[0].as_py() == 2
    schema = pa.ipc.open_file(made.column("data")[0].as_buffer()).schema
    assert f"up to {LONGEST}" in schema.metadata[b"anydim.failures"].decode()


def test_a_shard_that_kills_its_actors_is_not_tried_for_ever(
    cluster: str, embedder: Embedder, starter_folder: Path, job: EmbedJob
) -> None:
    import ray

    settings = {"model": str(starter_folder), **SETTINGS}
    tries = ray.remote(num_cpus=0)(Tries).remote()
    facts = EmbedWork(embedder, job).facts
    actor = ShardActor(settings, job, facts, tries)
    record = Record(40, "in.jsonl:41", "a text")
    shard = pa.table({"number": [4], "rows": [1], "records": [ray.cloudpickle.dumps([record])]})
    for _ in range(5):
        assert actor(shard).column("texts")[0].as_py() == 1
    with pytest.raises(ComputeFailed, match="5 actors died with rows 40 to 40"):
        actor(shard)
    ray.kill(tries)
    other = replace(facts, identity={**facts.identity, "device": "another"})
    with pytest.raises(ConfigError, match="device is 'another' on one and 'cpu' on another"):
        ShardActor(settings, job, other, tries)


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, job: EmbedJob) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "anydim.deploy.ray_data", raising=False)
    monkeypatch.delitem(sys.modules, "anydim.deploy.cluster", raising=False)
    result = CliRunner().invoke(make_program(), ["embed", *job.inputs, "-o", "x.npy", "--ray", "local"])
    assert result.exit_code == 1
    assert "pip install 'anydim[ray]'" in result.output

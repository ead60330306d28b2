"""Bad days of `anydim embed`: full disks, broken files, signals, two commands at once. All is told, nothing is lost."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from anydim import Embedder
from anydim.errors import ConfigError, InvalidRequest, StorageFailed
from anydim.offline.embed import EmbedJob, EmbedWork
from anydim.offline.job import Done, run_job
from anydim.offline.records import Reading, read_records
from anydim.offline.shards import Parts
from tests.shelf import Shelf

COUNT = 600
SHARD = 20


@pytest.fixture(scope="module")
def embedder(shelf: Shelf) -> Iterator[Embedder]:
    with Embedder(str(shelf.folder("qwen3")), dtype="float32", device="cpu", show_progress=False) as opened:
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"text": f"text {n} " + "word " * (n % 50)}) + "\n" for n in range(COUNT)))
    return path


def job_of(source: Path, name: str, **more: Any) -> EmbedJob:
    return EmbedJob(inputs=[str(source)], output=source.parent / name, shard_texts=SHARD, **more)


def run(embedder: Embedder, job: EmbedJob, look: Callable[[Done], None] = lambda done: None) -> Done:
    return run_job(EmbedWork(embedder, job), job, look)


def stop(done: Done) -> None:
    if done.shards > 3:
        raise KeyboardInterrupt


def command(shelf: Shelf, job: EmbedJob, *more: str) -> list[str]:
    words = [sys.executable, "-m", "anydim", "embed", *job.inputs, "-o", str(job.output), "--no-enable-tqdm"]
    return [*words, "--model", str(shelf.folder("qwen3")), "--device", "cpu", "--dtype", "float32", *more]


def whole(embedder: Embedder, source: Path, name: str) -> bytes:
    """What a run that nothing stops writes."""
    job = job_of(source, f"whole-{name}")
    run(embedder, job)
    return job.output.read_bytes()


def test_a_file_that_may_not_grow_is_told_by_name_and_the_job_goes_on(
    shelf: Shelf, embedder: Embedder, source: Path
) -> None:
    """As on a full disk: the output is larger than any shard, and has no room."""
    job = job_of(source, "out.npy")
    wanted = whole(embedder, source, "out.npy")
    most = len(wanted) // 2
    words = command(shelf, job, "--shard-texts", str(SHARD))
    limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (most, most))
    told = subprocess.run(words, capture_output=True, text=True, preexec_fn=limit, timeout=120, check=False)
    assert told.returncode == 1
    assert told.stderr.splitlines() == [
        f"Error: {job.output} cannot be written: File too large; finished shards are kept, and the same command with "
        "--resume goes on"
    ]
    assert not job.output.exists()
    assert not list(source.parent.rglob("*.tmp"))  # what has no use takes no room
    run(embedder, job_of(source, "out.npy", resume=True))
    assert job.output.read_bytes() == wanted


def test_sigterm_is_a_stop_like_any_other(shelf: Shelf, embedder: Embedder, source: Path) -> None:
    job = job_of(source, "out.parquet")
    wanted = whole(embedder, source, "out.parquet")
    words = command(shelf, job, "--shard-texts", str(SHARD))
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    parts, deadline = Path(f"{job.output}.parts"), time.monotonic() + 60
    while not (parts / "shard-000001.arrow").exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 143, told
    assert told.splitlines() == ["Stopped. The same command with --resume goes on with the last shard."]
    run(embedder, job_of(source, "out.parquet", resume=True))
    assert job.output.read_bytes() == wanted


def test_a_stop_does_not_wait_for_a_silent_standard_input(shelf: Shelf, embedder: Embedder, source: Path) -> None:
    wanted = whole(embedder, source, "out.npy")
    job = replace(job_of(source, "out.npy"), inputs=["-"])
    words = command(shelf, job, "--shard-texts", str(SHARD))
    code, told = stopped_while_silent(words, source.read_bytes()[:-5], job.output, COUNT // SHARD - 1, signal.SIGTERM)
    assert (code, told) == (143, ["Stopped. The same command with --resume goes on with the last shard."])
    done = subprocess.run([*words, "--resume"], input=source.read_bytes(), capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert job.output.read_bytes() == wanted


def test_a_rerank_does_not_wait_either(shelf: Shelf, source: Path) -> None:
    output, pairs = source.parent / "scores.npy", 2 * COUNT  # a pair is two texts of a shard
    words = [sys.executable, "-m", "anydim", "rerank", "-", "-o", str(output), "--document-column", "text"]
    words += [
        "--query",
        "a",
        "--model",
        str(shelf.folder("cross-bert")),
        "--device",
        "cpu",
        "--shard-texts",
        str(SHARD),
    ]
    code, told = stopped_while_silent(words, source.read_bytes()[:-5], output, pairs // SHARD - 2, signal.SIGINT)
    assert (code, told[-1]) == (130, "Stopped. The same command with --resume goes on with the last shard.")


def stopped_while_silent(
    words: list[str], given: bytes, output: Path, shards: int, number: signal.Signals
) -> tuple[int, list[str]]:
    """A command that gets some input and then no more, stopped when so many shards are done: its code and words."""
    running = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert running.stdin is not None
    assert running.stderr is not None
    try:
        running.stdin.write(given)
        running.stdin.flush()
        last, deadline = Path(f"{output}.parts") / f"shard-{shards - 1:06}.arrow", time.monotonic() + 60
        while not last.exists() and running.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert last.exists()
        running.send_signal(number)
        code = running.wait(timeout=30)
        return code, running.stderr.read().decode().splitlines()
    finally:
        running.kill()
        running.stdin.close()
        running.stderr.close()


def test_an_input_that_cannot_be_opened_costs_no_shard_before_it(embedder: Embedder, source: Path) -> None:
    later = source.parent / "later.jsonl"
    with socket.socket(socket.AF_UNIX) as place:  # it is there, and open() refuses it
        place.bind(str(later))
    inputs = [str(source), str(later)]
    with pytest.raises(InvalidRequest, match=r"later\.jsonl cannot be opened: "):
        run(embedder, replace(job_of(source, "out.npy"), inputs=inputs))
    assert len(list(source.parent.rglob("shard-*.arrow"))) == COUNT // SHARD
    later.unlink()
    later.write_text(source.read_text())
    done = run(embedder, replace(job_of(source, "out.npy"), inputs=inputs, resume=True))
    assert (done.earlier_rows, done.own_rows, done.failed) == (COUNT, COUNT, 0)


def test_an_input_that_has_changed_costs_no_shard_before_it(embedder: Embedder, source: Path) -> None:
    def stop_behind_the_fourth(done: Done) -> None:
        if done.own_rows == 4 * SHARD:
            raise KeyboardInterrupt

    job = job_of(source, "out.npy", resume=True)
    with pytest.raises(KeyboardInterrupt):
        run(embedder, job, stop_behind_the_fourth)
    shard = Path(f"{job.output}.parts") / "shard-000001.arrow"
    shard.unlink()
    lines = source.read_text().splitlines()
    lines[2 * SHARD] = json.dumps({"text": "another"})
    source.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match=r"the input has changed since .*shard-000002\.arrow"):
        run(embedder, job)
    assert shard.exists()


def test_two_commands_never_work_on_one_output(shelf: Shelf, embedder: Embedder, source: Path) -> None:
    job = job_of(source, "out.parquet")
    told: list[subprocess.CompletedProcess[str]] = []

    def others(done: Done) -> None:
        if not told:
            for flag in ("--resume", "--overwrite"):
                words = command(shelf, job, flag)
                told.append(subprocess.run(words, capture_output=True, text=True, timeout=60, check=False))

    done = run(embedder, job, others)
    assert [each.returncode for each in told] == [2, 2]
    assert {each.stderr for each in told} == {
        f"Error: another command is at work on {job.output}; name another output\n"
    }
    assert (done.rows, pq.read_table(job.output).num_rows) == (COUNT, COUNT)


def test_a_job_that_was_stopped_belongs_to_the_next_one(embedder: Embedder, source: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(embedder, job_of(source, "out.parquet"), stop)
    first, second = Parts(source.parent / "out.parquet"), Parts(source.parent / "out.parquet")
    first.check_way(resume=True, overwrite=False)
    facts = json.loads((first.folder / "job.json").read_text())
    first.open(facts, resume=True, overwrite=False)
    for begin in (second.check_way, partial(second.open, facts)):
        with pytest.raises(ConfigError, match="another command is at work"):
            begin(resume=True, overwrite=True)
    first.release()
    other = {**facts, "model_sha256": {**facts["model_sha256"], "config.json": "another"}}
    with pytest.raises(ConfigError, match=r"holds another job: model_sha256 of config\.json; start with --overwrite"):
        second.open(other, resume=True, overwrite=False)
    assert second.open(facts, resume=True, overwrite=False)
    assert second.open(facts, resume=False, overwrite=True) == frozenset()
    second.release()


def test_a_job_that_ends_between_its_output_and_its_shards_goes_on(
    embedder: Embedder, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(parts: Parts) -> None:
        raise KeyboardInterrupt

    job = job_of(source, "out.parquet")
    monkeypatch.setattr(Parts, "remove", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(embedder, job)
    monkeypatch.undo()
    before = job.output.read_bytes()
    done = run(embedder, job_of(source, "out.parquet", resume=True))
    assert (done.own_rows, job.output.read_bytes()) == (0, before)
    assert sorted(path.name for path in source.parent.iterdir()) == [
        "in.jsonl",
        "out.parquet",
        "out.parquet.manifest.json",
    ]


def test_a_folder_that_cannot_go_costs_nothing(
    embedder: Embedder, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another command looks at it as it is removed, or a network keeps a file of it a moment longer."""
    job = job_of(source, "out.parquet")
    unlink = Path.unlink

    def looked_at(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok=missing_ok)
        if path.name == "lock":
            path.touch()

    monkeypatch.setattr(Path, "unlink", looked_at)
    done = run(embedder, job)
    monkeypatch.undo()
    assert done.rows == COUNT == pq.read_table(job.output).num_rows
    assert [path.name for path in Path(f"{job.output}.parts").iterdir()] == ["lock"]
    with pytest.raises(ConfigError, match="is there already; add --overwrite"):
        run(embedder, job_of(source, "out.parquet", resume=True))
    assert run(embedder, job_of(source, "out.parquet", overwrite=True)).own_rows == COUNT
    assert not Path(f"{job.output}.parts").exists()


def cut(shard: Path) -> None:
    os.truncate(shard, 100)


def blank_rows(shard: Path) -> None:
    """Zeros in place of what says how the rows are stored; what tells of the texts is whole."""
    data = bytearray(shard.read_bytes())
    mark = b"\xff\xff\xff\xff"  # each message begins with it: first the schema, then the rows
    begin = data.index(mark, data.index(mark) + 4)
    data[begin : begin + 40] = bytes(40)
    shard.write_bytes(data)


@pytest.mark.parametrize("harm", [cut, blank_rows])
def test_a_broken_shard_is_named_and_can_be_made_anew(
    embedder: Embedder, source: Path, harm: Callable[[Path], None]
) -> None:
    wanted = whole(embedder, source, "out.parquet")
    job = job_of(source, "out.parquet", resume=True)
    with pytest.raises(KeyboardInterrupt):
        run(embedder, job, stop)
    shard = Path(f"{job.output}.parts") / "shard-000001.arrow"
    harm(shard)
    with pytest.raises(ConfigError, match=rf"{shard.name} is broken \(.*\): remove it, and --resume makes it anew"):
        run(embedder, job)
    shard.unlink()
    run(embedder, job)
    assert job.output.read_bytes() == wanted


def test_what_is_in_the_way_of_an_output_is_said_before_the_model_loads(
    embedder: Embedder, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = source.parent / "set.parquet"
    folder.mkdir()
    (folder / "precious").touch()
    for output, words in (
        ("set.parquet", "is a folder, and no output of an earlier job"),
        ("in.jsonl/out.npy", "in.jsonl is no folder"),
    ):
        with pytest.raises(ConfigError, match=words):
            run(embedder, job_of(source, output, overwrite=True))
    assert (folder / "precious").exists()
    with pytest.raises(StorageFailed, match=r"/proc/.* cannot be written: "):
        run(embedder, job_of(source, "/proc/out.npy"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(ConfigError, match=f"no permission to write into {source.parent}"):
        run(embedder, job_of(source, "below/out.npy"))


def problems(path: Path, *keep: str) -> list[tuple[str, str]]:
    """Of each row its line and what is wrong with it."""
    found = read_records([str(path)], Reading(keep=keep))
    return [(record.where.rpartition(":")[2], record.problem) for record in found]


def test_json_that_python_writes_is_read_and_what_cannot_be_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"text": "behind a mark", "id": 1}\n{"text": "not a number", "id": NaN}\n\n'
        b'{"text": "first", "text": "last of equal keys", "id": 1e999}\n{"text": "half \\ud83d", "id": 1}\n'
        b'{"text": "fine", "id": "\\ud83d"}\n{"text": "nul \\u0000", "id": 123456789012345678901234567890}\n'
        b'{"text": "cut o'
    )
    found = list(read_records([str(path)], Reading(keep=("id",))))
    assert [(record.where.rpartition(":")[2], record.text) for record in found if not record.problem] == [
        ("1", "behind a mark"),
        ("2", "not a number"),
        ("4", "last of equal keys"),
        ("7", "nul \0"),
    ]
    bad = [(line, why) for line, why in problems(path, "id") if why]
    assert bad[:3] == [("3", "is an empty line"), ("5", "text is not UTF-8"), ("6", "id is not UTF-8")]
    assert bad[3][0] == "8"
    assert bad[3][1].startswith("is not JSON: ")


def test_fields_that_no_file_can_hold_cost_their_row_alone(embedder: Embedder, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes('id,text\n1,good\ncafé,kept as another code\n3,"two\nlines"\n4,\n'.encode("latin-1"))
    assert problems(path, "id") == [("2", ""), ("3", "id is not UTF-8"), ("4", ""), ("6", "text is empty")]
    done = run(embedder, EmbedJob(inputs=[str(path)], output=tmp_path / "out.parquet", reading=Reading(keep=("id",))))
    assert (done.failed, done.first_failure) == (2, f"{path}:3: id is not UTF-8")
    assert pq.read_table(tmp_path / "out.parquet").column("id").to_pylist() == ["1", "3"]


def test_a_table_in_another_code_is_told_by_its_header(embedder: Embedder, tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes("id,text\n1,good\n".encode("utf-16"))
    done = run(embedder, EmbedJob(inputs=[str(path)], output=tmp_path / "out.parquet"))
    assert done.first_failure.startswith(f"{path}:1: the header has no column text; it has ")
    assert done.first_failure.isprintable()


def test_a_file_that_shrinks_while_it_is_read_ends_with_a_word(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    line = json.dumps({"text": "word " * 20}) + "\n"
    path.write_text(line * 10_000)
    records = read_records([str(path)], Reading())
    assert next(records).text
    os.truncate(path, len(line) * 5000 + 7)
    *good, last = records
    assert (len(good), {record.problem for record in good}) == (4999, {""})
    assert last.where == f"{path}:5001"
    assert last.problem.startswith("is not JSON: ")


def test_a_text_that_is_too_long_is_told_in_the_commands_words(embedder: Embedder, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({"text": "word " * 5000}) + "\n")
    done = run(embedder, EmbedJob(inputs=[str(path)], output=tmp_path / "out.npy"))
    assert done.first_failure.startswith(f"{path}:1: the text has ")
    assert "--truncate end" in done.first_failure


def test_standard_input_that_is_closed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InvalidRequest, match="standard input is closed"):
        read_records(["-"], Reading())

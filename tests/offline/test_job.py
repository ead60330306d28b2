"""`anydim embed`: the right vectors in every format, in the order of the input, whatever stops the job."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from anydim import Embedder
from anydim.errors import ConfigError, InvalidRequest, MissingExtra, TooLong
from anydim.intake.request import InputType, Truncate
from anydim.offline.embed import EmbedJob, EmbedWork
from anydim.offline.job import Done, run_job
from anydim.offline.records import Reading
from anydim.types import OutputDtype
from tests.offline.small_memory import LONGEST, small_memory
from tests.shelf import Shelf
from tests.texts import SENTENCES

TEXTS = [*SENTENCES, *(f"text number {place} " + "word " * (place % 23) for place in range(40))]
READING = Reading(keep=("id",))


@pytest.fixture(scope="module")
def embedder(shelf: Shelf) -> Iterator[Embedder]:
    with Embedder(str(shelf.folder("qwen3")), dtype="float32", show_progress=False) as opened:
        yield opened


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"id": f"d{n}", "text": text}) + "\n" for n, text in enumerate(TEXTS)))
    return path


def run(embedder: Embedder, source: Path, output: str, **more: Any) -> tuple[Path, Done]:
    job = EmbedJob(inputs=[str(source)], output=source.parent / output, reading=READING, shard_texts=10, **more)
    return job.output, run_job(EmbedWork(embedder, job), job, lambda done: None)


def as_table(path: Path) -> Any:
    if path.suffix == ".parquet":
        return pq.read_table(path)
    if path.suffix == ".arrow":
        return pa.ipc.open_file(path).read_all()
    if path.suffix == ".lance":
        return lancedb.connect(str(path.parent)).open_table(path.stem).to_arrow()
    return pa.Table.from_pylist([json.loads(line) for line in path.read_text().splitlines()])


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl", "out.arrow", "out.lance"])
def test_the_vectors_of_the_library_in_the_order_of_the_input(embedder: Embedder, source: Path, name: str) -> None:
    output, done = run(embedder, source, name)
    table = as_table(output).sort_by("row")
    assert table.column("id").to_pylist() == [f"d{n}" for n in range(len(TEXTS))]
    if name != "out.lance":  # a table of a database has no order of its own
        assert as_table(output).column("row").to_pylist() == list(range(len(TEXTS)))
    found = np.array(table.column("embedding").to_pylist(), np.float32)
    np.testing.assert_allclose(found, embedder.embed(TEXTS), atol=1e-6)
    assert (done.rows, done.failed, done.shards) == (len(TEXTS), 0, 5)
    assert sorted(path.name for path in source.parent.iterdir()) == sorted(["in.jsonl", name, f"{name}.manifest.json"])


@pytest.mark.parametrize("dtype", list(OutputDtype))
def test_every_output_type(embedder: Embedder, source: Path, dtype: OutputDtype) -> None:
    output, _ = run(embedder, source, "out.parquet", output_dim=32, output_dtype=dtype)
    table = pq.read_table(output)
    kind = table.schema.field("embedding").type
    assert pa.types.is_fixed_size_list(kind)
    assert kind.list_size == dtype.stored(32)
    assert ("scale" in table.column_names) == dtype.has_scale
    wanted = embedder.embed(TEXTS, output_dim=32, output_dtype=dtype)
    found = np.array(table.column("embedding").to_pylist(), wanted.dtype)
    if dtype in (OutputDtype.FLOAT32, OutputDtype.FLOAT16):
        np.testing.assert_allclose(found, wanted, atol=2e-3)
    else:  # a component between two levels may fall to either side in another batch
        assert (found == wanted).mean() > 0.99


@pytest.mark.parametrize(
    "asked", [{"instruction": "Find the law"}, {"prompt_name": "query"}, {"input_type": InputType.QUERY}]
)
def test_what_goes_before_the_texts(embedder: Embedder, source: Path, asked: dict[str, Any]) -> None:
    output, _ = run(embedder, source, "out.npy", **asked)
    np.testing.assert_allclose(np.load(output), embedder.embed(TEXTS, **asked), atol=1e-6)
    assert np.abs(np.load(output) - embedder.embed(TEXTS)).max() > 1e-3


def test_a_matrix_has_the_rows_of_the_input(embedder: Embedder, source: Path) -> None:
    with source.open("a") as file:
        file.write('nonsense\n{"text": "the last"}\n')
    output, done = run(embedder, source, "out.npy", output_dim=32)
    matrix = np.load(output)
    assert matrix.shape == (len(TEXTS) + 2, 32)
    assert not matrix[-2].any()
    np.testing.assert_allclose(matrix[-1], embedder.embed("the last", output_dim=32), atol=1e-6)
    (error,) = map(json.loads, Path(f"{output}.errors.jsonl").read_text().splitlines())
    assert error["row"] == len(TEXTS)
    assert error["where"] == f"{source}:{len(TEXTS) + 1}"
    assert done.failed == 1


def test_a_shard_of_bad_rows_alone_loses_no_job(embedder: Embedder, source: Path) -> None:
    source.write_text("nonsense\n" * 10 + '{"id": "d", "text": "the last"}\n')
    output, done = run(embedder, source, "out.parquet")
    assert (done.rows, done.failed) == (11, 10)
    assert pq.read_table(output).column("id").to_pylist() == ["d"]


def test_too_long_a_text_is_an_entry_among_the_errors(embedder: Embedder, source: Path) -> None:
    with source.open("a") as file:
        file.write(json.dumps({"text": "long " * 3000}) + "\n")
    output, done = run(embedder, source, "out.parquet")
    assert (done.failed, pq.read_table(output).num_rows) == (1, len(TEXTS))
    assert "tokens" in Path(f"{output}.errors.jsonl").read_text()
    assert run(embedder, source, "cut.parquet", truncate=Truncate.END)[1].failed == 0


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl", "out.npy", "out.arrow"])
def test_a_job_that_goes_on_writes_the_same_bytes(embedder: Embedder, source: Path, name: str) -> None:
    whole, _ = run(embedder, source, name)
    wanted = whole.read_bytes(), Path(f"{whole}.manifest.json").read_bytes()
    whole.unlink()

    def stop(done: Done) -> None:
        if done.shards > 2:
            raise KeyboardInterrupt

    job = EmbedJob(inputs=[str(source)], output=whole, reading=READING, shard_texts=10)
    with pytest.raises(KeyboardInterrupt):
        run_job(EmbedWork(embedder, job), job, stop)
    assert not whole.exists()
    with pytest.raises(ConfigError, match="--resume"):
        run_job(EmbedWork(embedder, job), job, lambda done: None)
    _, done = run(embedder, source, name, resume=True)
    assert 0 < done.texts < len(TEXTS)
    assert (whole.read_bytes(), Path(f"{whole}.manifest.json").read_bytes()) == wanted


def test_another_job_or_input_does_not_go_on(embedder: Embedder, source: Path) -> None:
    def stop(done: Done) -> None:
        raise KeyboardInterrupt

    job = EmbedJob(inputs=[str(source)], output=source.parent / "out.parquet", reading=READING, shard_texts=10)
    with pytest.raises(KeyboardInterrupt):
        run_job(EmbedWork(embedder, job), job, stop)
    with pytest.raises(ConfigError, match="dim was 64 and is 32"):
        run(embedder, source, "out.parquet", resume=True, output_dim=32)
    source.write_text(source.read_text().replace("Beijing", "Peking"))
    with pytest.raises(ConfigError, match="input has changed"):
        run(embedder, source, "out.parquet", resume=True)
    run(embedder, source, "out.parquet", overwrite=True)
    with pytest.raises(ConfigError, match="there already"):
        run(embedder, source, "out.parquet")


def test_columns_that_change_their_type_become_text(embedder: Embedder, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    ids: list[Any] = [*range(10), "x", None, *range(8), {"a": [1]}, True]
    source.write_text("".join(json.dumps({"id": one, "text": "a"}) + "\n" for one in ids))
    output, _ = run(embedder, source, "out.parquet")
    found = pq.read_table(output).column("id").to_pylist()
    assert found[:2] == ["0", "1"] and found[10:12] == ["x", None] and found[-2:] == ['{"a": [1]}', "true"]


def test_a_missing_package_is_said_before_any_work(
    embedder: Embedder, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"anydim\[offline\]"):
        run(embedder, source, "out.parquet")
    assert [path.name for path in source.parent.iterdir()] == ["in.jsonl"]


def test_what_cannot_work_is_refused_before_anything_is_read(embedder: Embedder, source: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.parquet"):
        run(embedder, source, "out.xlsx")
    with pytest.raises(InvalidRequest, match="output_dim must be a multiple of 32"):
        run(embedder, source, "out.npy", output_dim=33)
    source.write_text("")
    with pytest.raises(ConfigError, match="no row"):
        run(embedder, source, "out.npy")
    assert [path.name for path in source.parent.iterdir()] == ["in.jsonl"]


def test_a_killed_command_goes_on(shelf: Shelf, source: Path) -> None:
    source.write_text("".join(json.dumps({"text": f"text {place} " + "word " * 30}) + "\n" for place in range(3000)))
    output = source.parent / "out.parquet"
    folder = str(shelf.folder("qwen3"))
    words = [sys.executable, "-m", "anydim", "embed", str(source), "-o", str(output), "--model", folder]
    words += ["--shard-texts", "50", "--device", "cpu", "--dtype", "float32"]
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    parts = Path(f"{output}.parts")
    while not (parts / "shard-000002.arrow").exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.communicate(timeout=30)
    assert not output.exists(), "it was killed in the middle"
    done = subprocess.run([*words, "--resume"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "3,000 rows" in done.stdout
    assert pq.read_table(output).num_rows == 3000
    assert not parts.exists()


def test_a_text_that_the_memory_does_not_hold_costs_its_row_alone(shelf: Shelf, source: Path) -> None:
    long = "word " * LONGEST
    with source.open("a") as file:
        file.write("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in (("x", long), ("y", "ok"))))
    with small_memory(), Embedder(str(shelf.folder("qwen3")), dtype="float32", show_progress=False) as small:
        assert small.started.longest == LONGEST
        output, done = run(small, source, "out.parquet", truncate=Truncate.END)
        with pytest.raises(TooLong, match="--max-input-tokens"):
            small.embed(long)
        np.testing.assert_allclose(
            np.array(pq.read_table(output).column("embedding").to_pylist()), small.embed([*TEXTS, "ok"]), atol=1e-6
        )
    assert done.failed == 1
    (error,) = map(json.loads, Path(f"{output}.errors.jsonl").read_text().splitlines())
    assert (error["row"], error["where"]) == (len(TEXTS), f"{source}:{len(TEXTS) + 1}")
    assert f"the GPU's memory holds texts of up to {LONGEST}" in error["error"]


def test_a_job_goes_on_where_the_memory_holds_a_little_less(shelf: Shelf, source: Path) -> None:
    """What a GPU has free is never the same twice to the byte."""

    def stop(done: Done) -> None:
        raise KeyboardInterrupt

    settings = {"dtype": "float32", "max_batch_tokens": 64, "show_progress": False}
    job = EmbedJob(inputs=[str(source)], output=source.parent / "out.npy", shard_texts=10)
    with Embedder(str(shelf.folder("qwen3")), **settings) as whole, pytest.raises(KeyboardInterrupt):
        run_job(EmbedWork(whole, job), job, stop)
    with small_memory(), Embedder(str(shelf.folder("qwen3")), **settings) as small:
        assert small.started.longest is not None
        again = replace(job, resume=True)
        assert run_job(EmbedWork(small, again), again, lambda done: None).rows == len(TEXTS)


@pytest.mark.parametrize("name", ["row", "embedding", "scale"])
def test_a_kept_field_never_takes_the_place_of_a_column(embedder: Embedder, source: Path, name: str) -> None:
    job = EmbedJob(inputs=[str(source)], output=source.parent / "out.parquet", reading=Reading(keep=("id", name)))
    with pytest.raises(ConfigError, match=f"--keep-columns {name}: the output has a column {name} of its own"):
        run_job(EmbedWork(embedder, job), job, lambda done: None)


@pytest.mark.parametrize("inputs", ["in.jsonl", "*.jsonl", "../{}/in.jsonl", "."])
def test_an_input_is_never_overwritten(embedder: Embedder, source: Path, inputs: str) -> None:
    given = str(source.parent / inputs.format(source.parent.name))
    before = source.read_bytes()
    job = EmbedJob(inputs=[given], output=source, overwrite=True)
    with pytest.raises(ConfigError, match=r"in\.jsonl is one of the inputs: name another output"):
        run_job(EmbedWork(embedder, job), job, lambda done: None)
    assert source.read_bytes() == before


def test_a_kept_field_that_no_row_has_is_told(
    embedder: Embedder, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reading = Reading(keep=("id", "tittle"))
    job = EmbedJob(inputs=[str(source)], output=source.parent / "out.parquet", reading=reading, shard_texts=10)
    run_job(EmbedWork(embedder, job), job, lambda done: None)
    assert pq.read_table(job.output).column("tittle").null_count == len(TEXTS)
    assert caplog.messages == ["no row has anything in its field tittle: that column is empty"]

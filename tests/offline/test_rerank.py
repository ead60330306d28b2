"""`anydim rerank`: CrossEncoder's scores in every format, for pairs and for lists, whatever stops the job."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
from sentence_transformers import CrossEncoder

from anydim import Reranker
from anydim.errors import ConfigError, InvalidRequest
from anydim.intake.request import Truncate
from anydim.offline.job import Done, run_job
from anydim.offline.records import Reading
from anydim.offline.rerank import QueryAndDocuments, RerankJob, RerankWork
from tests.offline.small_memory import LONGEST, small_memory
from tests.shelf import Shelf
from tests.texts import SENTENCES

QUERIES = ["What is gravity?", "Where is the harbour?", "capital of China"]
PAIRS = [(QUERIES[place % 3], text) for place, text in enumerate([*SENTENCES, *SENTENCES[::-1]])]


@pytest.fixture(scope="module")
def reranker(shelf: Shelf) -> Iterator[Reranker]:
    with Reranker(str(shelf.folder("cross-bert")), dtype="float32", show_progress=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def reference(shelf: Shelf) -> CrossEncoder:
    return CrossEncoder(str(shelf.folder("cross-bert")), device="cpu")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    rows = [{"id": n, "query": query, "document": text} for n, (query, text) in enumerate(PAIRS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(reranker: Reranker, source: Path, output: str, **more: Any) -> tuple[Path, Done]:
    take = more.pop("take", QueryAndDocuments())
    reading = Reading(take=take, keep=more.pop("keep", ()))
    job = RerankJob(
        inputs=[str(source)], output=source.parent / output, reading=reading, **({"shard_texts": 12} | more)
    )
    return job.output, run_job(RerankWork(reranker, job), job, lambda done: None)


def as_rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    if path.suffix == ".arrow":
        return list(pa.ipc.open_file(path).read_all().to_pylist())
    if path.suffix == ".lance":
        table = lancedb.connect(str(path.parent)).open_table(path.stem).to_arrow()
        return list(table.sort_by([("row", "ascending"), ("document", "ascending")]).to_pylist())
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl", "out.arrow", "out.lance"])
def test_pairs(reranker: Reranker, reference: CrossEncoder, pairs: Path, name: str) -> None:
    output, done = run(reranker, pairs, name, keep=("id",))
    rows = as_rows(output)
    assert [(row["row"], row["id"], row["document"], row["rank"]) for row in rows] == [
        (n, n, 0, 0) for n in range(len(PAIRS))
    ]
    np.testing.assert_allclose([row["score"] for row in rows], reference.predict(PAIRS), atol=1e-4)
    assert (done.rows, done.failed, done.texts) == (len(PAIRS), 0, len(PAIRS))
    assert done.shards > 2
    told = json.loads(Path(f"{output}.manifest.json").read_text())
    assert (told["rows"], told["document_column"]) == (len(PAIRS), "document")


def test_lists_are_ranked_within_their_rows(reranker: Reranker, reference: CrossEncoder, tmp_path: Path) -> None:
    source = tmp_path / "lists.jsonl"
    lists = [SENTENCES[: 2 + place] for place in range(4)]
    rows = [{"query": QUERIES[place % 3], "documents": texts} for place, texts in enumerate(lists)]
    source.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"query": "a", "document": "one alone"}]))
    output, _ = run(reranker, source, "out.parquet")
    found = as_rows(output)
    for place, row in enumerate(rows):
        own = [each for each in found if each["row"] == place]
        assert [each["document"] for each in own] == list(range(len(lists[place])))
        ranked = reranker.rerank(row["query"], row["documents"])
        assert [each["document"] for each in sorted(own, key=lambda each: each["rank"])] == [
            one.index for one in ranked
        ]
        wanted = reference.predict([(row["query"], text) for text in row["documents"]])
        np.testing.assert_allclose([each["score"] for each in own], wanted, atol=1e-4)
    assert (found[-1]["row"], found[-1]["document"], found[-1]["rank"]) == (4, 0, 0)


def test_a_causal_reranker_and_one_query_for_a_file_of_lines(shelf: Shelf, tmp_path: Path) -> None:
    source = tmp_path / "pages.txt"
    lines = [text for text in SENTENCES if "\n" not in text]
    source.write_text("\n".join(lines) + "\n")
    with Reranker(str(shelf.folder("reranker-tied")), dtype="float32", show_progress=False) as causal:
        output, _ = run(causal, source, "out.npy", take=QueryAndDocuments(query=QUERIES[0]), instruction="Be strict")
        wanted = causal.score(QUERIES[0], lines, instruction="Be strict")
    np.testing.assert_allclose(np.load(output), wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl", "out.npy", "out.arrow"])
def test_a_job_that_goes_on_writes_the_same_bytes(reranker: Reranker, pairs: Path, name: str) -> None:
    whole, _ = run(reranker, pairs, name)
    wanted = whole.read_bytes(), Path(f"{whole}.manifest.json").read_bytes()
    whole.unlink()

    def stop(done: Done) -> None:
        if done.shards > 2:
            raise KeyboardInterrupt

    job = RerankJob(inputs=[str(pairs)], output=whole, shard_texts=12)
    with pytest.raises(KeyboardInterrupt):
        run_job(RerankWork(reranker, job), job, stop)
    with pytest.raises(ConfigError, match="--resume"):
        run(reranker, pairs, name)
    with pytest.raises(ConfigError, match="truncate was 'end' and is 'start'"):
        run(reranker, pairs, name, resume=True, truncate=Truncate.START)
    _, done = run(reranker, pairs, name, resume=True)
    assert 0 < done.texts < len(PAIRS)
    assert (whole.read_bytes(), Path(f"{whole}.manifest.json").read_bytes()) == wanted


def test_bad_rows_are_entries_and_the_rest_goes_on(reranker: Reranker, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    rows: list[Any] = [
        {"query": "q", "document": "good"},
        {"document": "no query"},
        {"query": "q"},
        {"query": "q", "documents": []},
        {"query": "q", "documents": ["good", 5]},
        {"query": "q", "documents": ["good", "long " * 900]},
        {"query": "q", "document": "also good"},
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows) + "nonsense\n")
    output, done = run(reranker, source, "out.parquet", truncate=Truncate.NONE)
    assert [row["row"] for row in as_rows(output)] == [0, 6]
    errors = [json.loads(line) for line in Path(f"{output}.errors.jsonl").read_text().splitlines()]
    assert [error["row"] for error in errors] == [1, 2, 3, 4, 5, 7]
    for error, word in zip(
        errors,
        ["query is missing", "document is missing", "no document", "documents[1] is no text", "tokens", "JSON"],
        strict=True,
    ):
        assert word in error["error"]
    assert done.failed == 6


def test_what_a_matrix_cannot_hold(reranker: Reranker, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"query": "q", "documents": ["a", "b"]}\n{"query": "q", "document": "c"}\n')
    output, done = run(reranker, source, "out.npy")
    assert done.failed == 1
    scores = np.load(output)
    assert np.isnan(scores[0])
    assert scores[1] == pytest.approx(reranker.score("q", "c"), abs=1e-6)


def test_a_classifier_gives_no_order(shelf: Shelf, pairs: Path) -> None:
    folder = str(shelf.folder("cross-bert-3"))
    with Reranker(folder, show_progress=False) as classifier, pytest.raises(InvalidRequest, match="3 scores"):
        run(classifier, pairs, "out.parquet")


def test_the_command_stops_on_ctrl_c_and_goes_on(shelf: Shelf, tmp_path: Path) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.parquet"
    lines = [f"what is number {n}?,it is {n} " + "word " * 40 for n in range(8000)]  # enough to be interrupted
    source.write_text("q,d\n" + "\n".join(lines) + "\n")
    words = [sys.executable, "-m", "anydim", "rerank", str(source), "-o", str(output)]
    words += ["--model", str(shelf.folder("cross-bert")), "--query-column", "q", "--document-column", "d"]
    words += ["--shard-texts", "60", "--device", "cpu", "--dtype", "float32"]
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    parts = Path(f"{output}.parts")
    deadline = time.monotonic() + 60
    while not (parts / "shard-000001.arrow").exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=60)
    assert running.returncode == 130, told
    assert "--resume goes on" in told
    assert not output.exists()
    done = subprocess.run([*words, "--resume"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "8,000 rows" in done.stdout
    assert "scores in" in done.stdout
    assert pq.read_table(output).num_rows == 8000
    without = subprocess.run(words[:7], capture_output=True, text=True, timeout=60, check=False)
    assert without.returncode == 2
    assert "name a reranker: --model" in without.stderr


def test_a_pair_that_the_memory_does_not_hold_costs_its_row_alone(
    reranker: Reranker, shelf: Shelf, tmp_path: Path
) -> None:
    source = tmp_path / "rows.jsonl"
    rows = [{"query": "a", "documents": ["b", "c"]}, {"query": "a", "documents": ["b", "word " * LONGEST]}]
    source.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    with small_memory(), Reranker(str(shelf.folder("cross-bert")), dtype="float32", show_progress=False) as small:
        output, done = run(small, source, "out.jsonl")
    assert done.failed == 1
    assert [(row["row"], row["document"]) for row in as_rows(output)] == [(0, 0), (0, 1), (2, 0), (2, 1)]
    np.testing.assert_allclose([row["score"] for row in as_rows(output)], 2 * [*reranker.score("a", ["b", "c"])], 1e-5)
    assert f"up to {LONGEST}" in Path(f"{output}.errors.jsonl").read_text()


def test_a_kept_field_never_takes_the_place_of_a_column(reranker: Reranker, pairs: Path) -> None:
    with pytest.raises(ConfigError, match="--keep-columns document: the output has a column document of its own"):
        run(reranker, pairs, "out.parquet", keep=("document",))

"""`anydim advise`: each task on files of the user's own, what it writes, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner, Result

from anydim.cli.main import make_program
from tests.quality.rows import hidden_structure
from tests.texts import DATA

WIDTH = 64


def invoke(*words: str) -> Result:
    return CliRunner().invoke(make_program(), ["advise", *words])


def result_of(done: Result) -> dict:
    assert done.exit_code == 0, done.output
    return json.loads(done.output.splitlines()[-1])


def parquet(file: Path, **columns: object) -> str:
    """A Parquet file; tensors become columns of lists."""
    arrays = {
        name: pa.array(list(values.numpy()), pa.list_(pa.float32())) if isinstance(values, torch.Tensor) else values
        for name, values in columns.items()
    }
    pq.write_table(pa.table(arrays), file)
    return str(file)


def test_stored_vectors_need_no_model(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", hidden_structure(600, WIDTH).numpy())
    done = invoke("--corpus", str(tmp_path / "v.npy"), "-o", str(tmp_path / "out"), "--sample", "100", "--no-time")
    found = result_of(done)
    assert found["metric"] == "recall_at_10"
    assert (found["fitted_on"], found["measured_on"]) == (300, 300)
    assert len(found["rows"]) == 2 * 4 * 2  # dimensions, types, truncated and fitted
    assert found["recommended"]["bytes"] < 4 * WIDTH
    assert done.output.count("<- use") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["advise.html", "advise.json", "advise.png"]
    assert json.loads((tmp_path / "out" / "advise.json").read_text()) == found


def test_a_corpus_that_is_too_small_for_a_fit_is_told_so(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", hidden_structure(120, WIDTH).numpy())
    words = ("--corpus", str(tmp_path / "v.npy"), "-o", str(tmp_path / "out"), "--count", "3000")
    done = invoke(*words)
    assert not any(row["fitted"] for row in result_of(done)["rows"])
    assert "120 rows are too few to fit on; at least 200 are needed" in done.output
    assert all(row["search_ms"] > 0 for row in result_of(done)["rows"])
    assert "too few to fit on" not in invoke(*words, "--no-fitted", "--no-time").output


def test_labels_decide_where_there_are_some(tmp_path: Path) -> None:
    rows_ND = hidden_structure(150, WIDTH)
    corpus = parquet(tmp_path / "docs.parquet", id=[f"d{place}" for place in range(150)], embedding=rows_ND)
    asked_QD = torch.nn.functional.normalize(rows_ND[:40] + 0.01)
    queries = parquet(tmp_path / "queries.parquet", id=[f"q{place}" for place in range(40)], embedding=asked_QD)
    qrels = tmp_path / "qrels.tsv"
    lines = ["query-id\tcorpus-id\tscore", *(f"q{place}\td{place}\t1" for place in range(40)), "q0\tgone\t1"]
    qrels.write_text("\n".join(lines) + "\n")
    words = ("--corpus", corpus, "--queries", queries, "--qrels", str(qrels), "-o", str(tmp_path / "out"))
    found = result_of(invoke(*words, "--no-fitted", "--dtypes", "float32,binary,ubinary", "--json"))
    assert (found["metric"], found["units"], found["fitted_on"]) == ("ndcg_at_10", "40 queries", 0)
    assert {row["dtype"] for row in found["rows"]} == {"float32", "binary"}
    assert found["rows"][-1]["ndcg_at_10"] > 0.9
    qrels.write_text("q0 0 nobody 1\n")
    assert "no label names a query and a document of these files" in invoke(*words).output


def test_pairs_go_by_peoples_scores(tmp_path: Path) -> None:
    first_ND = hidden_structure(300, WIDTH)
    noise_P1 = torch.linspace(0, 1, 300)[:, None]
    second_ND = torch.nn.functional.normalize(first_ND * (1 - noise_P1) + hidden_structure(300, WIDTH, 7) * noise_P1)
    scores = (5 * (1 - noise_P1[:, 0])).tolist()
    corpus = parquet(tmp_path / "pairs.parquet", a=first_ND, b=second_ND, score=scores)
    words = ("--corpus", corpus, "--task", "pairs", "-o", str(tmp_path / "out"), "--no-time", "--no-fitted")
    found = result_of(invoke(*words, "--pair-fields", "a,b"))
    assert (found["metric"], found["units"]) == ("spearman", "300 pairs")
    assert found["rows"][-1]["spearman"] > 0.9
    assert "--pair-fields needs two names" in invoke(*words, "--pair-fields", "a").output


@pytest.mark.parametrize(("task", "metric"), [("classification", "accuracy"), ("clustering", "v_measure")])
def test_labels_of_rows_are_learned_and_found(tmp_path: Path, task: str, metric: str) -> None:
    labels = [("red", "green", "blue")[place % 3] for place in range(240)]
    centres = torch.nn.functional.normalize(torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(3)))
    rows_ND = torch.nn.functional.normalize(centres[torch.arange(240) % 3] + 0.5 * hidden_structure(240, WIDTH))
    corpus = parquet(tmp_path / "rows.parquet", label=labels, embedding=rows_ND)
    words = ("--corpus", corpus, "--task", task, "-o", str(tmp_path / "out"), "--no-time", "--dims", "64")
    found = result_of(invoke(*words, "--dtypes", "float32,binary"))
    assert (found["metric"], found["fitted_on"]) == (metric, 120)
    assert found["rows"][-1][metric] > 0.9
    assert "has no column kind" in invoke(*words, "--label-field", "kind").output


def test_texts_are_embedded_once(tmp_path: Path, minilm_folder: Path) -> None:
    rows = [json.loads(line) for line in (DATA / "udhr_articles.jsonl").read_text(encoding="utf-8").splitlines()]
    corpus = tmp_path / "docs.jsonl"
    english = [row for row in rows if row["lang"] == "en"]
    corpus.write_text("".join(json.dumps(row) + "\n" for row in [*english, {"text": " "}]))
    words = ("--corpus", str(corpus), "-o", str(tmp_path / "out"), "--model", str(minilm_folder), "--threads", "1")
    done = invoke(*words, "--dims", "32,384", "--dtypes", "float32", "--no-time")
    found = result_of(done)
    assert found["units"] == "30 queries"
    assert found["fitted_on"] == 0  # too few to fit
    assert not found["sure"] or found["recommended"]["dim"] == 384
    assert "docs.jsonl: 1 rows passed over" in done.output


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (np.zeros((3, 4), np.float32), "row 0 is zero or not finite"),
        (np.full((3, 4), np.nan, np.float32), "row 0 is zero or not finite"),
        (np.ones((3, 4), np.int8), "full vectors are a matrix of floats"),
        (np.ones(4, np.float32), "full vectors are a matrix of floats"),
        (np.empty((0, 4), np.float32), "holds nothing to measure"),
        (np.array([{"a": 1}], object), "cannot be read"),
    ],
)
def test_vectors_that_cannot_be_compared_are_named(tmp_path: Path, content: np.ndarray, said: str) -> None:
    np.save(tmp_path / "v.npy", content, allow_pickle=True)
    done = invoke("--corpus", str(tmp_path / "v.npy"), "-o", str(tmp_path / "out"))
    assert done.exit_code == 1
    assert said in done.output


def test_what_is_missing_or_wrong_is_named(tmp_path: Path) -> None:
    assert "nothing.jsonl does not exist" in invoke("--corpus", str(tmp_path / "nothing.jsonl")).output
    np.save(tmp_path / "v.npy", hidden_structure(60, WIDTH).numpy())
    words = ("--corpus", str(tmp_path / "v.npy"), "-o", str(tmp_path / "out"))
    assert "--dtypes must be among float32" in invoke(*words, "--dtypes", "int4").output
    assert "holds vectors alone, and no field label" in invoke(*words, "--task", "clustering").output

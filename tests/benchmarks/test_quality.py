"""Corpora and figures of the quality benchmarks: read as they should be, and measured only once."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from benchmarks import projection
from benchmarks.manuals import _of_source
from benchmarks.quality_by_dimension import Ledger, _shared, texts_of
from tests.quality.rows import hidden_structure

PAGE = r"""
.\" A comment.
.TH LS 1
.SH NAME
ls \- list directory contents
.SH SYNOPSIS
.B ls
.SH DESCRIPTION
List information about the \fBFILE\fRs (the current directory by default).
.PP
Sort entries alphabetically if none of
.B \-cftuvSUX
nor \-\-sort is given. Mandatory arguments to long options are mandatory for short options too, as everywhere else here.
.SH AUTHOR
Nobody.
"""


def test_a_manual_page_becomes_a_question_and_its_answer() -> None:
    page = _of_source("ls.1", PAGE)
    assert page is not None
    assert page.question == "list directory contents"
    assert page.text.startswith("List information about the FILEs (the current directory by default). Sort entries")
    assert "-cftuvSUX nor --sort is given." in page.text
    assert "Nobody" not in page.text
    assert _of_source("x.1", ".SH NAME\nx\n") is None


def test_a_search_task_in_mtebs_layout_is_read(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    rows = [{"_id": "d1", "title": "A title", "text": "One."}, {"_id": "d2", "title": "", "text": "Two."}]
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "which?"}\n{"_id": "q2", "text": "unasked?"}\n')
    (tmp_path / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq2\td1\t1\n")
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td2\t1\n")
    texts = texts_of(str(tmp_path), 0)
    assert (texts.left, texts.right, texts.labels) == (["A title One.", "Two."], ["which?"], [{1: 1}])


def test_pairs_in_mtebs_layout_are_read_from_parquet(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    table = pa.table({"sentence1": ["a b", "c"], "sentence2": ["a", "d"], "score": [4.5, 0.0]})
    pq.write_table(table, tmp_path / "data" / "test-00000-of-00001.parquet")
    texts = texts_of(str(tmp_path), 0)
    assert (texts.left, texts.right, texts.scores) == (["a b", "c"], ["a", "d"], [4.5, 0.0])


def test_pages_are_near_where_their_files_are() -> None:
    assert _shared("numpy/linalg/core.py:1", "numpy/linalg/core.py:9") == 3
    assert _shared("numpy/linalg/core.py:1", "numpy/random/core.py:1") == 1
    assert _shared("numpy/x.py:1", "scipy/x.py:1") == 0


def test_a_figure_is_measured_once_and_a_torn_line_again(tmp_path: Path) -> None:
    file = tmp_path / "figures.jsonl"
    asked: list[int] = []

    def measure() -> dict[str, float]:
        asked.append(1)
        return {"points": 5.0}

    assert Ledger(file).value({"dim": 32}, measure) == {"dim": 32, "points": 5.0}
    assert Ledger(file).value({"dim": 32}, measure)["points"] == 5.0
    file.write_text(file.read_text() + '{"dim": 64, "poi')
    ledger = Ledger(file)
    assert [row["dim"] for row in ledger.rows] == [32]
    assert len(asked) == 1


@pytest.mark.parametrize(("gain", "bar"), [(2.0, "met"), (1.0, "missed")])
def test_the_bar_goes_by_means_and_by_the_worst_place(gain: float, bar: str) -> None:
    dims = {f"d{dim}": 50.0 for dim in range(32, 385, 32)}
    rows = [{"corpus": "c", "model": "m", "way": way, "dtype": "float32", **dims} for way in ("truncated", "svd")]
    rows.append({**rows[0], "way": "neighbours"} | {name: value + gain for name, value in dims.items()})
    found = {row["verdict_on"]: row["bar"] for row in projection.verdicts(rows)}
    assert found["neighbours"] == bar
    rows[-1] |= {"d384": 49.4}
    assert projection.verdicts(rows)[-1]["bar"] == "missed"


def test_a_loss_that_the_questions_cannot_tell_from_none_has_an_interval_around_it() -> None:
    draw = np.random.default_rng(0)
    shared_Q = draw.uniform(0, 100, 400)
    rows = []
    for way, loss in {"truncated": 20.0, "svd": 0.0, "close": 0.6, "far": 5.0}.items():
        each = {f"d{dim}": shared_Q - loss + draw.normal(0, 10, 400) for dim in range(32, 385, 32)}
        values = {key: float(values_Q.mean()) for key, values_Q in each.items()}
        rows.append({"corpus": "c", "model": "m", "way": way, "dtype": "int8", **values, "each": each})
    found = {row["verdict_on"]: row for row in projection.verdicts(rows)}
    assert found["far"]["worst_low"] < found["far"]["worst"] < found["far"]["worst_high"] < -0.5
    assert found["far"]["surely_missed"] == 12
    assert found["close"]["surely_missed"] == 0
    assert found["close"]["dtype"] == "int8"


def test_half_whitening_evens_out_strengths() -> None:
    rows_ND = hidden_structure(500, 40)
    strengths, even = (
        (rows_ND @ matrix_DD).square().mean(dim=0).sqrt()
        for matrix_DD in (projection.by_moment(rows_ND), projection.half_whitening(rows_ND))
    )
    torch.testing.assert_close(even, strengths.sqrt(), atol=1e-3, rtol=1e-2)

"""The measured figures of search are those of scikit-learn, and the script runs on a small model from start to end."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from benchmarks import docstrings, retrieval


@given(st.lists(st.permutations(range(12)), min_size=1, max_size=8))
def test_recall_and_ndcg_are_those_of_scikit_learn(orders: list[list[int]]) -> None:
    ranked = [[str(page) for page in order] for order in orders]
    scores = np.array([[12 - order.index(page) for page in range(12)] for order in orders])
    right = np.zeros_like(scores)
    right[:, 0] = 1
    recall, ndcg = retrieval.quality(ranked, ["0"] * len(orders))
    assert ndcg == pytest.approx(ndcg_score(right, scores, k=10))
    assert recall == pytest.approx(np.mean([order.index(0) < 10 for order in orders]))


def test_pages_come_from_docstrings_and_do_not_hold_their_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "somepackage"
    package.mkdir()
    body = "It reads every one of them in turn and adds it to what was there before. " * 9
    (package / "__init__.py").write_text(
        f'"""Count what is given to it.\n\n{body}"""\n'
        f'def f():\n    """Too short.\n\n    {body}"""\n'
        f'def g():\n    """A second one of these.\n\n    No: A second one of these. {body}"""\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(docstrings, "PACKAGES", ("somepackage",))
    (page,) = docstrings.pages(10)
    assert page.name == "somepackage/__init__.py:0"
    assert page.question == "Count what is given to it."
    assert 500 < len(page.text) <= 600
    assert body.startswith(page.text)


def test_the_script_measures_every_method(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, minilm_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = Path(retrieval.__file__).read_text().splitlines()
    texts = [" ".join(lines[start : start + 6]) for start in range(0, 120, 6)]
    small = [docstrings.Page(f"page-{number}", text[:80], text) for number, text in enumerate(texts)]
    monkeypatch.setattr(retrieval, "pages", lambda count: small)
    monkeypatch.setattr(
        "sys.argv", ["retrieval.py", "--model", str(minilm_folder), "--queries", "5", "--out", str(tmp_path)]
    )
    retrieval.main()
    (file,) = tmp_path.glob("*.json")
    rows = json.loads(file.read_text())["rows"]
    assert rows[0]["pages"] == 20
    found = {row["method"]: row for row in rows[1:]}
    assert {"full 384", "384 x int8 alone", "64 x int8 alone", "BM25"} <= set(found)
    assert found["full 384"]["recall_at_10"] == found["64 x int8, 20 refined by 384 x int8"]["recall_at_10"]
    assert all(row["p50_ms"] > 0 and 0 <= row["ndcg_at_10"] <= 1 for row in found.values())

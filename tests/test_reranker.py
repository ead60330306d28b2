"""Reranker, the library: scores and order, every kind of argument, and what it refuses."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import anydim
from anydim import Ranked, Reranker
from anydim.errors import ConfigError, InvalidRequest, ModelError, TooLong
from tests.shelf import Shelf
from tests.texts import LONG

QUERY = "What is the capital of China?"
DOCUMENTS = ["The capital of China is Beijing.", "Gravity is a force.", "中国的首都是北京。"]


@pytest.fixture(scope="module")
def qwen3(shelf: Shelf) -> Iterator[Reranker]:
    with Reranker(str(shelf.folder("reranker-tied")), dtype="float32", device="cpu", show_progress=False) as reranker:
        yield reranker


@pytest.fixture(scope="module")
def bert(shelf: Shelf) -> Iterator[Reranker]:
    with Reranker(str(shelf.folder("cross-bert")), dtype="float32", device="cpu", show_progress=False) as reranker:
        yield reranker


def test_scores_are_those_of_one_batch(shelf: Shelf, qwen3: Reranker) -> None:
    scores = qwen3.score(QUERY, DOCUMENTS)
    assert scores.shape == (3,)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, shelf.ours("reranker-tied").scores(QUERY, DOCUMENTS, raw=False)[:, 0], atol=1e-5)
    raw = qwen3.score(QUERY, DOCUMENTS, raw=True)
    np.testing.assert_allclose(1 / (1 + np.exp(-raw)), scores, atol=1e-6)


def test_one_text_many_queries_and_no_document(qwen3: Reranker, bert: Reranker) -> None:
    scores = bert.score(QUERY, DOCUMENTS)
    assert bert.score(QUERY, DOCUMENTS[1]) == pytest.approx(scores[1], abs=1e-6)
    each = bert.score([QUERY, "another", "third"], DOCUMENTS)
    np.testing.assert_allclose(each[1], bert.score("another", DOCUMENTS[1]), atol=1e-6)
    with pytest.raises(InvalidRequest, match="2 queries for 3 documents"):
        bert.score(["a", "b"], DOCUMENTS)
    with pytest.raises(InvalidRequest, match="at least one"):
        bert.score(QUERY, [])
    assert bert.rerank(QUERY, []) == []


def test_rerank_puts_the_best_first(qwen3: Reranker) -> None:
    scores = qwen3.score(QUERY, DOCUMENTS)
    ranked = qwen3.rerank(QUERY, DOCUMENTS)
    assert [row.index for row in ranked] == np.argsort(-scores).tolist()
    assert ranked[0] == Ranked(ranked[0].index, float(scores.max()), DOCUMENTS[int(scores.argmax())])
    assert qwen3.rerank(QUERY, DOCUMENTS, top_n=2) == ranked[:2]
    assert asyncio.run(qwen3.arerank(QUERY, DOCUMENTS)) == ranked


def test_an_instruction_changes_the_scores_where_it_is_understood(qwen3: Reranker, bert: Reranker) -> None:
    assert np.abs(qwen3.score(QUERY, DOCUMENTS, instruction="Find laws") - qwen3.score(QUERY, DOCUMENTS)).max() > 1e-4
    with pytest.raises(InvalidRequest, match="was not trained with instructions") as caught:
        bert.score(QUERY, DOCUMENTS, instruction="Find laws")
    assert caught.value.param == "instruction"


def test_several_labels(shelf: Shelf) -> None:
    with Reranker(str(shelf.folder("cross-bert-3")), dtype="float32", device="cpu", show_progress=False) as model:
        assert model.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
        assert model.score(QUERY, DOCUMENTS).shape == (3, 3)
        np.testing.assert_allclose(model.score(QUERY, DOCUMENTS, raw=False).sum(axis=1), 1.0, atol=1e-6)
        with pytest.raises(InvalidRequest, match="gives no order"):
            model.rerank(QUERY, DOCUMENTS)


def test_long_documents_are_cut_unless_that_is_refused(bert: Reranker) -> None:
    assert np.isfinite(bert.score(QUERY, [LONG])).all()
    with pytest.raises(TooLong, match=r"documents\[1\]"):
        bert.score(QUERY, ["short", LONG], truncate="none")
    with pytest.raises(InvalidRequest, match="truncate must be one of"):
        bert.score(QUERY, ["a"], truncate="middle")


def test_threads_and_long_lists_share_one_engine(bert: Reranker) -> None:
    documents = [f"document number {place}" for place in range(600)]
    whole = bert.score(QUERY, documents, show_progress=True)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda place: bert.score(QUERY, documents[place : place + 150]), range(0, 600, 150)))
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)


def test_what_is_no_reranker_is_refused_by_name(shelf: Shelf) -> None:
    with pytest.raises(ModelError, match="cannot rerank"):
        Reranker(str(shelf.folder("bert-mean")), show_progress=False)
    with pytest.raises(ConfigError, match="did you mean"):
        Reranker(str(shelf.folder("cross-bert")), rerank_templat="single", show_progress=False)
    with pytest.raises(ConfigError, match="reranker"):
        anydim.Embedder(str(shelf.folder("cross-bert")), show_progress=False)

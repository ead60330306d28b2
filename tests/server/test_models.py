"""Several models in one real server: two embedding models and two rerankers, picked by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.server.process import serving
from tests.shelf import Shelf

QUERY = "what is a man eating?"
DOCUMENTS = ["a man is eating bread", "the capital of China", "a dog"]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_each_answers_under_its_name(shelf: Shelf, minilm_folder: Path, workers: str) -> None:
    second, rerankers = shelf.folder("qwen3"), [shelf.folder(name) for name in ("cross-bert", "cross-roberta")]
    flags = ("--dtype", "float32", "--device", "cpu", "--served-model-name", "first", "--http-workers", workers)
    flags += tuple(word for folder in rerankers for word in ("--reranker", str(folder)))
    with serving(minilm_folder, "--model", second, *flags) as server:
        names = [model["id"] for model in server.get("/v1/models")[1]["data"]]
        assert names == ["first", minilm_folder.name, "qwen3", "cross-bert", "cross-roberta"]
        body = {"query": QUERY, "documents": DOCUMENTS, "raw_scores": True}
        for asked, name in (({}, "cross-bert"), ({"model": "Cross-RoBERTa"}, "cross-roberta")):
            _, answer = server.post("/v1/rerank", body | asked)
            assert answer["model"] == name
            scores = {row["index"]: row["relevance_score"] for row in answer["results"]}
            wanted = shelf.ours(name).scores(QUERY, DOCUMENTS)[:, 0]
            np.testing.assert_allclose([scores[place] for place in range(3)], wanted, atol=1e-4)
        _, answer = server.post("/v1/embeddings", {"input": DOCUMENTS, "model": "QWEN3", "dimensions": 32})
        ours = shelf.ours("qwen3").embed(DOCUMENTS, output_dim=32)
        np.testing.assert_allclose([row["embedding"] for row in answer["data"]], ours, atol=1e-5)
        assert len(server.post("/v1/embeddings", {"input": "a"})[1]["data"][0]["embedding"]) == 384
        status, error = server.post("/v1/embeddings", {"input": "a", "model": "other"})
        assert status == 404
        assert all(name in error["error"]["message"] for name in names)

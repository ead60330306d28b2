"""The router in a user's own application: its life, its answers, its errors, its documentation."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient
from sentence_transformers import CrossEncoder

import anydim.integrations.fastapi
from anydim.errors import ModelError
from tests.shelf import load_reference

TEXTS = ["Penguins are birds that cannot fly.", "A volcano throws out lava and ash.", "Lists are sorted by sorted()."]
FLOAT32: dict[str, Any] = {"dtype": "float32", "threads": 1}


@pytest.fixture(scope="module")
def client(minilm_folder: Path, cross_folder: Path) -> Iterator[TestClient]:
    """An application with a lifespan and a route of its own."""
    life: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        life.append("started")
        yield
        life.append("stopped")

    app = FastAPI(lifespan=lifespan)
    app.get("/life")(lambda: life)
    app.include_router(
        anydim.integrations.fastapi.router(
            str(minilm_folder),
            reranker=str(cross_folder),
            settings=FLOAT32,
            reranker_settings=FLOAT32,
            tags=["text"],
        ),
        prefix="/text",
    )
    with TestClient(app) as client:
        yield client
    assert life == ["started", "stopped"]


def test_vectors_are_those_of_sentence_transformers(client: TestClient, minilm_folder: Path) -> None:
    answer = client.post("/text/embed", json={"inputs": TEXTS})
    assert answer.status_code == 200
    reference = load_reference(minilm_folder).encode(TEXTS)
    np.testing.assert_allclose(answer.json(), reference, atol=1e-5)
    mixed = client.post("/text/embed", json={"inputs": TEXTS, "output_dim": [32, None, 64]}).json()
    assert [len(row) for row in mixed] == [32, 384, 64]
    assert len(client.post("/text/embed", json={"inputs": "one text", "output_dim": 32}).json()) == 1


def test_documents_are_ranked_as_sentence_transformers_scores_them(client: TestClient, cross_folder: Path) -> None:
    body = {"query": "birds", "documents": TEXTS, "top_n": 2, "return_documents": True}
    ranked = client.post("/text/rerank", json=body).json()
    scores = CrossEncoder(str(cross_folder), device="cpu").predict([("birds", text) for text in TEXTS])
    assert [row["index"] for row in ranked] == np.argsort(-scores)[:2].tolist()
    assert [row["document"] for row in ranked] == [TEXTS[row["index"]] for row in ranked]
    np.testing.assert_allclose([row["relevance_score"] for row in ranked], np.sort(scores)[::-1][:2], atol=1e-4)


@pytest.mark.parametrize(
    ("path", "body", "status", "field", "words"),
    [
        ("embed", {"inputs": TEXTS, "output_dim": 50}, 400, "output_dim", "multiple of 32"),
        ("embed", {"inputs": [], "output_dim": 64}, 400, "input", "at least one text"),
        ("embed", {"inputs": "word " * 600}, 400, "input[0]", "tokens"),
        ("embed", {"inputs": 3}, 422, "inputs", "valid"),
        ("embed", {}, 422, "inputs", "required"),
        ("rerank", {"query": "x", "documents": TEXTS, "top_n": 0}, 422, "top_n", "greater"),
        ("rerank", {"query": "x", "documents": TEXTS, "instruction": "y"}, 400, "instruction", "instruction"),
    ],
)
def test_errors_have_fastapi_s_shape(
    client: TestClient, path: str, body: dict[str, Any], status: int, field: str, words: str
) -> None:
    answer = client.post(f"/text/{path}", json=body)
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"][0]
    assert detail["loc"][:2] == ["body", field]
    assert words in detail["msg"]


def test_no_document_is_ranked_as_none(client: TestClient) -> None:
    assert client.post("/text/rerank", json={"query": "x", "documents": []}).json() == []


def test_the_application_s_documentation_has_the_routes(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/text/embed", "/text/rerank", "/life"} <= set(paths)
    assert paths["/text/embed"]["post"]["tags"] == ["text"]


def test_without_a_reranker_there_is_no_such_route_and_the_application_s_own_checks_hold(minilm_folder: Path) -> None:
    def refuse() -> None:
        raise HTTPException(401)

    app = FastAPI()
    app.include_router(
        anydim.integrations.fastapi.router(str(minilm_folder), settings=FLOAT32, dependencies=[Depends(refuse)])
    )
    with TestClient(app) as client:
        assert client.post("/rerank", json={}).status_code == 404
        assert client.post("/embed", json={"inputs": "x"}).status_code == 401


def test_a_model_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    app = FastAPI()
    app.include_router(anydim.integrations.fastapi.router(str(tmp_path / "missing")))
    with pytest.raises(ModelError), TestClient(app):
        pass

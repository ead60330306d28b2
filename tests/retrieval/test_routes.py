"""POST /v1/search on a real server: the hits of the library, filters, errors, keys."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from anydim import Embedder, Reranker
from anydim.retrieval import Document, Index
from tests.server.process import ServerProcess, serving
from tests.shelf import Shelf

from .conftest import articles

KEY = "s3cret-key"


@pytest.fixture(scope="module")
def index(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    with Index(str(tmp_path_factory.mktemp("served")), embedder) as index:
        index.add(articles("en", "de"))
        yield index


@pytest.fixture(scope="module")
def server(index: Index, minilm_folder: Path) -> Iterator[ServerProcess]:
    words = ("--db", index.settings.db, "--top-k", "3", "--dtype", "float32", "--api-key", KEY)
    with serving(minilm_folder, *words) as running:
        yield running


def ask(server: ServerProcess, body: Any, path: str = "/v1/search", key: str = KEY) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    return server.send(urllib.request.Request(server.address + path, json.dumps(body).encode(), headers))


def test_hits_are_those_of_the_library_with_what_each_stage_did(server: ServerProcess, index: Index) -> None:
    for path in ("/v1/search", "/search"):
        status, answer = ask(server, {"query": "the right to go to school"}, path)
        assert status == 200
        expected = index.search("the right to go to school", top_k=3).hits
        assert [(hit["document"], hit["chunk"], hit["text"]) for hit in answer["data"]] == [
            (hit.document, hit.chunk, hit.text) for hit in expected
        ]
        assert [hit["score"] for hit in answer["data"]] == pytest.approx([hit.score for hit in expected], abs=1e-4)
        assert [(stage["name"], stage["candidates"]) for stage in answer["stages"]] == [
            ("coarse", index.count()),
            ("refine", 3),
        ]


def test_filters_and_numbers_of_hits_come_from_the_request(server: ServerProcess) -> None:
    body = {"query": "school", "where": {"lang": "de", "article": {">": 20}}, "top_k": 5, "per_document": True}
    status, answer = ask(server, body | {"model": "model", "instruction": None, "candidates": 50, "timeout": 60})
    assert status == 200
    assert {hit["metadata"]["lang"] for hit in answer["data"]} == {"de"}
    assert len({hit["document"] for hit in answer["data"]}) == len(answer["data"]) == 5


def test_what_another_process_adds_is_found(server: ServerProcess, index: Index) -> None:
    index.add([Document("penguin", "Penguins live in the south.", {"lang": "en"})])
    assert ask(server, {"query": "penguins"})[1]["data"][0]["document"] == "penguin"


@pytest.mark.parametrize(
    ("body", "status", "param", "words"),
    [
        ({}, 400, "query", "Missing required parameter: 'query'"),
        ({"query": " "}, 400, "query", "not empty"),
        ({"query": 3}, 400, "query", "expected a string"),
        ({"query": "x", "top_k": 0}, 400, "top_k", "1"),
        ({"query": "x", "candidates": 100_000}, 400, "candidates", "10000"),
        ({"query": "x", "where": {"lnag": "en"}}, 400, "where", "did you mean lang?"),
        ({"query": "x", "where": {"article": "one"}}, 400, "where", "article is a number"),
        ({"query": "x", "where": "lang=en"}, 400, "where", "expected an object"),
        ({"query": "x", "instruction": "y"}, 400, "instruction", "not trained with instructions"),
        ({"query": "x", "model": "another"}, 404, "model", "does not exist"),
        ({"query": "x", "rerank": True}, 404, "model", "no reranker"),
        ({"query": "x", "rerank": 3}, 400, "rerank", "boolean"),
    ],
)
def test_a_wrong_request_is_refused_by_its_field(
    server: ServerProcess, body: Any, status: int, param: str, words: str
) -> None:
    found, answer = ask(server, body)
    assert found == status, answer
    assert answer["error"]["param"] == param
    assert words in answer["error"]["message"]


def test_the_route_is_documented(server: ServerProcess) -> None:
    request = urllib.request.Request(server.address + "/openapi.json", headers={"Authorization": f"Bearer {KEY}"})
    paths = server.send(request)[1]["paths"]
    assert paths["/v1/search"]["post"]["requestBody"]["content"]["application/json"]["example"]["top_k"] == 3
    assert "/search" in paths


def test_a_served_reranker_is_the_third_stage(index: Index, minilm_folder: Path, shelf: Shelf) -> None:
    folder = shelf.folder("cross-bert")
    words = ("--db", str(index.settings.db), "--reranker", folder, "--dtype", "float32")
    body = {"query": "school", "rerank": True, "where": {"lang": "en"}, "top_k": 4}
    with serving(minilm_folder, *words) as running:
        status, answer = running.post("/v1/search", body)
        assert status == 200, answer
        assert running.post("/v1/search", body | {"rerank": "cross-bert"})[1]["data"] == answer["data"]
        assert running.post("/v1/search", body | {"where": {"article": -1}})[1]["data"] == []
    assert [stage["name"] for stage in answer["stages"]] == ["coarse", "refine", "rerank"]
    before = index.search("school", where={"lang": "en"}, top_k=50).hits
    assert [stage["candidates"] for stage in answer["stages"]][1:] == [len(before), 4]
    with Reranker(str(folder), dtype="float32", threads=1) as reranker:
        scores = sorted(reranker.score("school", [hit.text for hit in before]), reverse=True)
    assert [hit["relevance"] for hit in answer["data"]] == pytest.approx(scores[:4], abs=1e-4)


def test_search_is_behind_the_keys(server: ServerProcess) -> None:
    assert ask(server, {"query": "x"}, key="another")[0] == 401


@pytest.mark.parametrize("words", [["--collection", "other"], ["--db", "PLACE"]])
def test_an_index_that_is_not_there_stops_the_start(
    index: Index, minilm_folder: Path, tmp_path: Path, words: list[str]
) -> None:
    given = [str(tmp_path) if word == "PLACE" else word for word in words]
    with serving(minilm_folder, "--db", str(index.settings.db), *given) as failing:
        failing.until(lambda: failing.process.poll() is not None)
        assert failing.stop() == 2
    assert "there is no index named" in failing.output

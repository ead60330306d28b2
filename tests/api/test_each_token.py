"""/embed_all and token_embed: one vector a token, as many as fit into an answer, in each dialect's own error shape."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence

import numpy as np
import pytest
from httpx2 import ASGITransport, AsyncClient
from starlette.testclient import TestClient

from anydim import testing
from anydim.testing import FakeModel
from anydim.types import Item, Output
from tests.api.conftest import with_engine

WIDTH = 64


def prefixes(text: str) -> np.ndarray:
    """What the fake model counts up to each token of a text, the final one included."""
    rows = [FakeModel().vector(text[: count + 1]) for count in range(len(text))]
    for row in rows:
        row[30] = 0  # the final token has not come yet
    return np.array([*rows, FakeModel().vector(text)])


def test_embed_all_gives_the_states_of_one_text_and_of_many(http: TestClient) -> None:
    one = http.post("/embed_all", json={"inputs": "ab1"})
    assert one.status_code == 200
    assert len(one.json()) == 1
    np.testing.assert_array_equal(one.json()[0], prefixes("ab1"))
    many = http.post("/embed_all", json={"inputs": ["ab1", "b"]}).json()
    assert [np.shape(rows) for rows in many] == [(4, WIDTH), (2, WIDTH)]
    np.testing.assert_array_equal(many[0], one.json()[0])


def test_dimension_length_and_prompt_by_request(http: TestClient) -> None:
    body = {"inputs": ["ab1", "b"], "output_dim": [32, 64], "normalize": True, "input_type": "query"}
    first, second = http.post("/embed_all", json=body).json()
    assert np.shape(first) == (len("query: ab1") + 1, 32)
    assert np.shape(second) == (len("query: b") + 1, 64)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)
    cut = prefixes("query: ab1")[:, :32]
    np.testing.assert_allclose(first, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-6)


def test_the_default_is_the_width_whatever_other_routes_answer() -> None:
    with testing.client(default_dim="32") as client:
        assert np.shape(client.post("/embed", json={"inputs": "a"}).json()) == (1, 32)
        assert np.shape(client.post("/embed_all", json={"inputs": "a"}).json()) == (1, 2, WIDTH)


def test_vllms_token_vectors_as_numbers_and_as_base64(http: TestClient) -> None:
    body = {"input": ["ab1", "b"], "task": "token_embed", "use_activation": False}
    answer = http.post("/pooling", json=body).json()
    np.testing.assert_array_equal(answer["data"][0]["data"], prefixes("ab1"))
    assert answer["usage"]["prompt_tokens"] == 6
    packed = http.post("/pooling", json=body | {"encoding_format": "base64", "dimensions": 32}).json()
    raw = np.frombuffer(base64.b64decode(packed["data"][1]["data"]), "<f4").reshape(-1, 32)
    np.testing.assert_array_equal(raw, prefixes("b")[:, :32])
    unit = http.post("/pooling", json={"input": "ab1", "task": "token_embed"}).json()
    np.testing.assert_allclose(np.linalg.norm(unit["data"][0]["data"], axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/embed_all", {"inputs": []}, 400, "Empty"),
        ("/embed_all", {"inputs": "a", "dimensions": 33}, 422, "Validation"),
        ("/embed_all", {"inputs": "a" * 9000}, 422, "Validation"),
        ("/embed_all", {"inputs": {"a": 1}}, 422, "Validation"),
    ],
)
def test_errors_are_teis(http: TestClient, path: str, body: object, status: int, kind: str) -> None:
    answer = http.post(path, json=body)
    assert (answer.status_code, answer.json()["error_type"]) == (status, kind)


def test_an_answer_that_would_be_too_large_is_refused_before_it_is_computed() -> None:
    with testing.client(max_answer_bytes=10 * WIDTH * 4) as client:
        assert client.post("/embed_all", json={"inputs": ["a" * 8]}).status_code == 200
        refused = client.post("/embed_all", json={"inputs": ["a" * 8, "b"]})
        assert refused.status_code == 422
        assert "11 vectors, 2816 bytes" in refused.json()["error"]
        assert "--max-answer-bytes" in refused.json()["error"]
        refused = client.post("/pooling", json={"input": ["a" * 10], "task": "token_embed"})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input")
        fits = {"input": ["a" * 10], "task": "token_embed", "dimensions": 32}
        assert client.post("/pooling", json=fits).status_code == 200
        assert client.post("/v1/embeddings", json={"input": ["a" * 100] * 20}).status_code == 200


def test_a_task_that_the_model_does_not_do(http: TestClient) -> None:
    refused = http.post("/pooling", json={"input": "a", "task": "token_classify"})
    assert "embed or token_embed" in refused.json()["error"]["message"]


class Waiting:
    """An engine that answers when it is told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.running = 0

    async def run(self, items: Sequence[Item]) -> list[Output]:
        self.running += 1
        await self.go.wait()
        return [Output(np.zeros((len(item.ids), item.dim), np.float32)) for item in items]

    def health(self) -> object:
        raise NotImplementedError

    def counts(self) -> None:
        return None

    def facts(self) -> None:
        return None


def test_answers_under_way_are_bounded_together() -> None:
    engine = Waiting()
    with with_engine(engine, max_answers_bytes=15 * WIDTH * 4) as client:

        async def ask() -> None:
            transport = ASGITransport(app=client.app)
            async with AsyncClient(transport=transport, base_url="http://testserver") as http:
                body = {"inputs": "a" * 9}
                first = asyncio.create_task(http.post("/embed_all", json=body))
                while not engine.running:
                    await asyncio.sleep(0.01)
                refused = await http.post("/embed_all", json=body)
                assert (refused.status_code, refused.json()["error_type"]) == (429, "Overloaded")
                assert int(refused.headers["retry-after"]) >= 1
                engine.go.set()
                assert (await first).status_code == 200
                assert (await http.post("/embed_all", json=body)).status_code == 200, "its room is free again"

        asyncio.run(ask())

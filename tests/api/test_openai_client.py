"""The real openai client against a real server on a socket, and against the in-process one."""

from __future__ import annotations

import asyncio

import httpx2
import numpy as np
import openai
import pytest
from starlette.testclient import TestClient

from anydim import testing

from .conftest import running

TEXTS = ["Hello, World", "zebra 42"]


def expected(dim: int = 64) -> np.ndarray:
    counts = np.array([testing.FakeModel().vector(text)[:dim] for text in TEXTS])
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


@pytest.mark.parametrize("fields", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_every_encoding(address: str, fields: dict[str, str]) -> None:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none") as client:
        answer = client.embeddings.create(model="fake", input=TEXTS, **fields)
    found = [
        np.frombuffer(__import__("base64").b64decode(row.embedding), "<f4")
        if isinstance(row.embedding, str)
        else row.embedding
        for row in answer.data
    ]
    np.testing.assert_allclose(np.array(found), expected(), atol=1e-6)
    assert answer.usage.prompt_tokens == sum(map(len, TEXTS)) + 2
    assert answer.model == "anydim/fake"


def test_the_asynchronous_client_many_at_once(address: str) -> None:
    async def ask() -> list[list[float]]:
        async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="none") as client:
            calls = [client.embeddings.create(model="fake", input=TEXTS[index % 2]) for index in range(40)]
            return [answer.data[0].embedding for answer in await asyncio.gather(*calls)]

    np.testing.assert_allclose(np.array(asyncio.run(ask())), np.tile(expected(), (20, 1)), atol=1e-6)


def test_dimensions_and_our_fields(address: str) -> None:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none") as client:
        plain = client.embeddings.create(model="fake", input=TEXTS, dimensions=32)
        np.testing.assert_allclose([row.embedding for row in plain.data], expected(32), atol=1e-6)
        mixed = client.embeddings.create(model="fake", input=TEXTS, extra_body={"output_dim": [32, 64]})
        assert [len(row.embedding) for row in mixed.data] == [32, 64]
        query = client.embeddings.create(model="fake", input="a", extra_body={"input_type": "query"})
        assert query.usage.total_tokens == len("query: a") + 1


def test_models(address: str) -> None:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none") as client:
        assert [model.id for model in client.models.list()] == ["anydim/fake"]
        assert client.models.retrieve("anydim/fake").owned_by == "anydim"


def test_errors_become_the_clients_own(address: str) -> None:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.NotFoundError) as unknown:
            client.embeddings.create(model="ada", input="a")
        assert unknown.value.code == "model_not_found"
        assert unknown.value.request_id
        with pytest.raises(openai.BadRequestError) as wrong:
            client.embeddings.create(model="fake", input="a", dimensions=50)
        assert wrong.value.param == "dimensions"


def test_keys() -> None:
    with testing.app(api_key=["right"]) as app, running(app) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="right") as client:
            assert client.embeddings.create(model="fake", input="a").data
        with openai.OpenAI(base_url=f"{url}/v1", api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
            client.embeddings.create(model="fake", input="a")


def test_without_a_socket(http: TestClient) -> None:
    client = openai.OpenAI(base_url="http://testserver/v1", api_key="none", http_client=http)
    answer = client.embeddings.create(model="fake", input=TEXTS)
    np.testing.assert_allclose([row.embedding for row in answer.data], expected(), atol=1e-6)


def test_one_connection_serves_many_requests(address: str) -> None:
    with httpx2.Client(base_url=address) as client:
        for _ in range(20):
            assert client.post("/v1/embeddings", json={"input": "a"}).status_code == 200
            assert client.post("/v1/embeddings", json={"input": 3}).status_code == 400

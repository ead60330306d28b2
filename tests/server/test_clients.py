"""The real openai client against a real server: the README's three calls, sync and async, float and base64."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest
import torch
from sentence_transformers import SentenceTransformer

from tests.checkpoints import Qwen3Spec, write_qwen3
from tests.qwen_tokenizer import VOCAB_SIZE
from tests.server.process import ServerProcess, serving

TEXTS = ["What is the capital of China?", "The capital of China is Beijing.", "", "مرحبا 你好 \U0001f600"]
WIDTH = 2560


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, qwen3_tokenizer: Path) -> Path:
    spec = Qwen3Spec(width=WIDTH, layers=1, heads=4, kv_heads=2, inner=64, vocab=VOCAB_SIZE, dtype=torch.bfloat16)
    return write_qwen3(tmp_path_factory.mktemp("wide") / "Qwen3-Embedding-4B", spec, qwen3_tokenizer)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    with serving(folder, "--dtype", "float32", "--served-model-name", "search") as server:
        yield server


@pytest.fixture(scope="module")
def reference(folder: Path) -> np.ndarray:
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    return model.encode(TEXTS, convert_to_numpy=True)


def client(server: ServerProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.address + "/v1", api_key="none", max_retries=0)


def rows(answer: openai.types.CreateEmbeddingResponse) -> np.ndarray:
    return np.array([row.embedding for row in answer.data], np.float32)


def cut(full: np.ndarray, dim: int) -> np.ndarray:
    part = full[:, :dim]
    return part / np.linalg.norm(part, axis=1, keepdims=True)


@pytest.mark.parametrize(("extra", "dim"), [({}, 1024), ({"output_dim": 32}, 32), ({"output_dim": 2560}, 2560)])
def test_the_three_calls_of_the_readme(
    server: ServerProcess, reference: np.ndarray, extra: dict[str, int], dim: int
) -> None:
    answer = client(server).embeddings.create(model="qwen3-embedding-4b", input=TEXTS, extra_body=extra)
    vectors = rows(answer)
    assert vectors.shape == (len(TEXTS), dim)
    assert np.abs(vectors - cut(reference, dim)).max() <= 1e-5


@pytest.mark.parametrize("encoding", ["float", "base64", openai.omit])
def test_float_and_base64_are_the_same_vectors(server: ServerProcess, reference: np.ndarray, encoding: str) -> None:
    answer = client(server).embeddings.create(model="search", input=TEXTS, dimensions=64, encoding_format=encoding)
    if encoding == "base64":  # asked for by name, the client hands the text on as it is
        vectors = np.array([np.frombuffer(_decoded(row.embedding), "<f4") for row in answer.data])
    else:
        vectors = rows(answer)
    assert np.abs(vectors - cut(reference, 64)).max() <= 1e-5


def test_the_async_client_sends_many_requests_at_once(server: ServerProcess, reference: np.ndarray) -> None:
    async def ask() -> list[np.ndarray]:
        async with openai.AsyncOpenAI(base_url=server.address + "/v1", api_key="none") as client:
            wanted = [
                client.embeddings.create(model="search", input=TEXTS, extra_body={"output_dim": 32 * (1 + place % 80)})
                for place in range(40)
            ]
            return [rows(answer) for answer in await asyncio.gather(*wanted)]

    for place, vectors in enumerate(asyncio.run(ask())):
        assert np.abs(vectors - cut(reference, 32 * (1 + place % 80))).max() <= 1e-5


def test_each_input_may_have_its_own_dimension(server: ServerProcess, reference: np.ndarray) -> None:
    dims = [32, 2560, 1024, 96]
    answer = client(server).embeddings.create(model="search", input=TEXTS, extra_body={"output_dim": dims})
    for row, dim, full in zip(answer.data, dims, reference, strict=True):
        assert np.abs(np.array(row.embedding) - cut(full[None], dim)[0]).max() <= 1e-5


def test_usage_counts_the_tokens_that_ran(server: ServerProcess) -> None:
    usage = client(server).embeddings.create(model="search", input="The capital of China is Beijing.").usage
    assert usage.prompt_tokens == usage.total_tokens == 8  # seven and the final <|endoftext|>


def test_the_wrong_dimension_is_the_documented_error(server: ServerProcess) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client(server).embeddings.create(model="search", input=TEXTS, extra_body={"output_dim": 50})
    assert caught.value.body["message"] == "output_dim must be a multiple of 32 between 32 and 2560, got 50"
    assert caught.value.body["param"] == "output_dim"


def test_the_model_answers_to_its_names(server: ServerProcess) -> None:
    names = [model.id for model in client(server).models.list()]
    assert "search" in names
    for name in ("Qwen3-Embedding-4B", "qwen3-EMBEDDING-4b", "search"):
        assert client(server).embeddings.create(model=name, input="a").model
    with pytest.raises(openai.NotFoundError, match="search"):
        client(server).embeddings.create(model="another", input="a")


def _decoded(text: object) -> bytes:
    import base64

    assert isinstance(text, str)
    return base64.b64decode(text)

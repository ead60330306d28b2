"""litellm, which many services go through: its provider for each dialect, against one server."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.clients.test_clients import BEST, DOCUMENTS, QUERY, TEXTS, sigmoid, unit

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # read on import: it would ask the network for prices


@pytest.fixture(scope="module")
def litellm() -> Iterator[Any]:
    import litellm

    litellm.suppress_debug_info = True
    yield litellm
    litellm.in_memory_llm_clients_cache.flush_cache()


@pytest.mark.speaks("OpenAI", "litellm", "POST /v1/embeddings")
@pytest.mark.speaks("Cohere", "litellm", "POST /v2/embed")
@pytest.mark.speaks("Jina", "litellm", "POST /v1/embeddings")
@pytest.mark.speaks("vLLM", "litellm", "POST /v1/embeddings")
@pytest.mark.parametrize(
    ("provider", "path"),
    [
        ("openai", "/v1"),
        ("hosted_vllm", "/v1"),
        ("jina_ai", "/v1"),
        ("cohere", "/v2/embed"),
    ],
)
def test_litellm_embeds(litellm: Any, address: str, provider: str, path: str) -> None:
    extra = {"allowed_openai_params": ["dimensions"]} if provider == "openai" else {}
    answer = litellm.embedding(
        model=f"{provider}/fake", input=TEXTS, dimensions=32, api_base=address + path, api_key="none", **extra
    )
    found = [row["embedding"] for row in answer.data]
    np.testing.assert_allclose(found, [unit(text, 32) for text in TEXTS], atol=1e-6)
    assert answer.usage.prompt_tokens == sum(len(text) + 1 for text in TEXTS)


@pytest.mark.speaks("Ollama", "litellm", "POST /api/embed")
def test_litellm_embeds_as_ollama(litellm: Any, address: str) -> None:
    answer = litellm.embedding(model="ollama/fake", input=TEXTS, api_base=address, api_key="none")
    np.testing.assert_allclose([row["embedding"] for row in answer.data], [unit(text) for text in TEXTS], atol=1e-6)


@pytest.mark.speaks("Cohere", "litellm", "POST /v1/rerank, /v2/rerank")
@pytest.mark.speaks("Jina", "litellm", "POST /v1/rerank")
@pytest.mark.speaks("vLLM", "litellm", "POST /rerank")
@pytest.mark.speaks("TEI", "litellm", "POST /rerank")
@pytest.mark.parametrize(
    ("provider", "path"),
    [
        ("cohere", "/v1/rerank"),
        ("cohere", "/v2/rerank"),
        ("jina_ai", "/v1/rerank"),
        ("hosted_vllm", ""),
        ("huggingface", ""),
    ],
)
def test_litellm_reranks(litellm: Any, address: str, provider: str, path: str) -> None:
    answer = litellm.rerank(
        model=f"{provider}/fake-reranker",
        query=QUERY,
        documents=DOCUMENTS,
        top_n=4,
        api_base=address + path,
        api_key="none",
    )
    assert [row["index"] for row in answer.results] == BEST
    scores = [row["relevance_score"] for row in answer.results]
    assert scores == pytest.approx([sigmoid(n) for n in (3, 2, 1, 0)])


def test_litellm_gets_the_errors_of_the_dialect(litellm: Any, address: str) -> None:
    with pytest.raises(litellm.NotFoundError, match="this server has: anydim/fake"):
        litellm.embedding(model="openai/other", input=["a"], api_base=address + "/v1", api_key="none", max_retries=0)
    with pytest.raises(litellm.APIConnectionError, match="this server has: anydim/fake"):
        litellm.rerank(model="cohere/other", query=QUERY, documents=DOCUMENTS, api_base=address, api_key="none")

"""Each dialect through the client that its users have. Scores count exclamation marks, vectors count characters."""

import asyncio
import json
import math
import urllib.error
import urllib.request
from typing import Any

import cohere
import numpy as np
import ollama
import openai
import pytest
from huggingface_hub import InferenceClient
from langchain_cohere import CohereEmbeddings, CohereRerank
from langchain_core.documents import Document

from anydim.testing import FakeModel

QUERY = "which?"
DOCUMENTS = ["none", "one!", "three!!!", "two!!"]
BEST = [2, 3, 1, 0]
TEXTS = ["abba", "what 12"]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def unit(text: str, dim: int = 64, prompt: str = "") -> np.ndarray:
    vector = FakeModel().vector(prompt + text)[:dim]
    return np.asarray(vector / np.linalg.norm(vector))


def post(address: str, path: str, body: Any) -> tuple[int, Any]:
    request = urllib.request.Request(address + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.mark.speaks("Cohere", "cohere", "POST /v2/rerank")
def test_cohere_v2_rerank(address: str) -> None:
    client = cohere.ClientV2("none", base_url=address)
    answer = client.rerank(model="fake-reranker", query=QUERY, documents=DOCUMENTS, top_n=3)
    assert [row.index for row in answer.results] == BEST[:3]
    assert [row.relevance_score for row in answer.results] == pytest.approx([sigmoid(n) for n in (3, 2, 1)])
    with pytest.raises(cohere.NotFoundError) as caught:
        client.rerank(model="other", query=QUERY, documents=DOCUMENTS)
    assert "anydim/fake-reranker" in caught.value.body["message"]
    with pytest.raises(cohere.BadRequestError):
        client.rerank(model="fake-reranker", query=QUERY, documents=[])


@pytest.mark.speaks("Cohere", "cohere", "POST /v1/rerank")
def test_cohere_v1_rerank(address: str) -> None:
    client = cohere.Client("none", base_url=address)
    documents = [{"text": text} for text in DOCUMENTS]
    answer = client.rerank(query=QUERY, documents=documents, top_n=2, return_documents=True)
    assert [row.index for row in answer.results] == BEST[:2]
    assert answer.results[0].document.text == "three!!!"
    assert answer.meta.api_version.version == "1"


@pytest.mark.speaks("Cohere", "cohere", "POST /v2/embed")
def test_cohere_v2_embed(address: str) -> None:
    client = cohere.ClientV2("none", base_url=address)
    types = ["float", "int8", "ubinary"]
    answer = client.embed(
        model="fake", texts=TEXTS, input_type="search_query", embedding_types=types, output_dimension=32
    )
    found = np.array(answer.embeddings.float_)
    np.testing.assert_allclose(found, [unit(text, 32, "query: ") for text in TEXTS], atol=1e-6)
    assert np.abs(answer.embeddings.int8).max(axis=1).tolist() == [127, 127]
    assert len(answer.embeddings.ubinary[0]) == 4
    with pytest.raises(cohere.BadRequestError):
        client.embed(model="fake", texts=TEXTS, input_type="search_query", output_dimension=33)


@pytest.mark.speaks("Cohere", "cohere", "POST /v1/embed")
def test_cohere_v1_embed(address: str) -> None:
    answer = cohere.Client("none", base_url=address).embed(texts=TEXTS, model="fake", input_type="search_document")
    np.testing.assert_allclose(np.array(answer.embeddings), [unit(text) for text in TEXTS], atol=1e-6)


@pytest.mark.speaks("Cohere", "langchain-cohere", "POST /v2/rerank, /v1/embed")
def test_langchain_cohere(address: str) -> None:
    ranker = CohereRerank(cohere_api_key="none", base_url=address, model="fake-reranker", top_n=2)
    found = ranker.compress_documents([Document(text) for text in DOCUMENTS], QUERY)
    assert [document.page_content for document in found] == ["three!!!", "two!!"]
    embedder = CohereEmbeddings(cohere_api_key="none", base_url=address, model="fake")
    np.testing.assert_allclose(embedder.embed_query("abba"), unit("abba", prompt="query: "), atol=1e-6)


@pytest.mark.speaks("OpenAI", "openai", "POST /v1/embeddings, GET /v1/models")
def test_openai(address: str) -> None:
    client = openai.OpenAI(base_url=address + "/v1", api_key="none", max_retries=0)
    answer = client.embeddings.create(model="fake", input=TEXTS, dimensions=32)
    np.testing.assert_allclose([row.embedding for row in answer.data], [unit(text, 32) for text in TEXTS], atol=1e-6)
    assert [model.id for model in client.models.list()] == ["anydim/fake", "anydim/fake-reranker"]
    with pytest.raises(openai.BadRequestError, match="gives no embeddings"):
        client.embeddings.create(model="fake-reranker", input="a")


@pytest.mark.speaks("Ollama", "ollama", "POST /api/embed, /api/embeddings, /api/show, GET /api/tags, /api/ps")
def test_ollama(address: str) -> None:
    client = ollama.Client(address)
    answer = client.embed(model="fake:latest", input=TEXTS, dimensions=32)
    np.testing.assert_allclose(answer.embeddings, [unit(text, 32) for text in TEXTS], atol=1e-6)
    assert answer.prompt_eval_count == len("abba") + len("what 12") + 2
    np.testing.assert_allclose(client.embeddings(model="fake", prompt="abba").embedding, unit("abba"), atol=1e-6)
    assert client.list().models[0].model == "anydim/fake:latest"
    assert client.ps().models[0].model == "anydim/fake:latest"
    assert client.show("fake").capabilities == ["embedding"]
    with pytest.raises(ollama.ResponseError, match="does not exist") as caught:
        client.embed(model="other", input="a")
    assert caught.value.status_code == 404
    found = asyncio.run(ollama.AsyncClient(address).embed(model="fake", input="abba"))
    np.testing.assert_allclose(found.embeddings[0], unit("abba"), atol=1e-6)


@pytest.mark.speaks("TEI", "huggingface_hub", "POST /")
def test_the_hubs_inference_client(address: str, classifier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # it asks this machine alone
    client = InferenceClient(address)
    np.testing.assert_allclose(client.feature_extraction("abba"), [unit("abba")], atol=1e-6)
    close, far = client.sentence_similarity("abba", ["abba", "what 12"])
    assert close == pytest.approx(1, abs=1e-6)
    assert far == pytest.approx(float(unit("abba") @ unit("what 12")), abs=1e-6)
    first, second = InferenceClient(classifier).text_classification("aab")
    assert (first.label, second.label) == ("a", "b")
    assert first.score == pytest.approx(sigmoid(1))


@pytest.mark.speaks(
    "TEI", "request shapes", "POST /embed, /embed_all, /rerank, /predict, /similarity, /tokenize, /decode, GET /info"
)
def test_tei_shapes(address: str, classifier: str) -> None:
    status, rows = post(address, "/embed", {"inputs": TEXTS, "normalize": False})
    assert status == 200
    assert rows == [FakeModel().vector(text).tolist() for text in TEXTS]
    _, matrices = post(address, "/embed_all", {"inputs": TEXTS})
    assert [len(states) for states in matrices] == [len(text) + 1 for text in TEXTS]
    assert [states[-1] for states in matrices] == rows
    _, ranks = post(address, "/rerank", {"query": QUERY, "texts": DOCUMENTS, "raw_scores": True, "return_text": True})
    assert [rank["index"] for rank in ranks] == BEST
    assert ranks[0] == {"index": 2, "score": 3.0, "text": "three!!!"}
    _, found = post(classifier, "/predict", {"inputs": [["aab"], ["b"]], "raw_scores": True})
    assert found == [
        [{"score": 2.0, "label": "a"}, {"score": 1.0, "label": "b"}],
        [{"score": 1.0, "label": "b"}, {"score": 0.0, "label": "a"}],
    ]
    body = {"inputs": {"source_sentence": "abba", "sentences": TEXTS}}
    assert post(address, "/similarity", body)[1][0] == pytest.approx(1, abs=1e-6)
    [tokens] = post(address, "/tokenize", {"inputs": "ab"})[1]
    assert [(token["id"], token["text"], token["special"], token["start"]) for token in tokens] == [
        (97, "a", False, 0),
        (98, "b", False, 1),
        (256, "<|end|>", True, None),
    ]
    assert post(address, "/decode", {"ids": [97]})[1] == ["a"]
    with urllib.request.urlopen(address + "/info", timeout=30) as answer:
        facts = json.loads(answer.read())
    assert (facts["model_id"], facts["max_input_length"]) == ("anydim/fake", 8192)


@pytest.mark.speaks("TEI", "request shapes", "errors")
@pytest.mark.parametrize(
    ("path", "body", "status", "kind"),
    [
        ("/embed", {"inputs": []}, 400, "Empty"),
        ("/embed", {}, 422, "Validation"),
        ("/embed", {"inputs": "a" * 9000}, 422, "Validation"),
        ("/rerank", {"query": "q", "texts": []}, 400, "Empty"),
        ("/rerank", {"texts": ["a"]}, 422, "Validation"),
        ("/tokenize", {"inputs": 3}, 422, "Validation"),
    ],
)
def test_tei_errors(address: str, path: str, body: Any, status: int, kind: str) -> None:
    found, error = post(address, path, body)
    assert (found, error["error_type"]) == (status, kind)
    assert set(error) == {"error", "error_type"}


@pytest.mark.speaks("vLLM", "request shapes", "POST /score, /rerank, /pooling, /tokenize, /detokenize")
def test_vllm_shapes(address: str) -> None:
    _, answer = post(address, "/score", {"model": "fake-reranker", "text_1": QUERY, "text_2": DOCUMENTS})
    assert [row["score"] for row in answer["data"]] == pytest.approx([sigmoid(n) for n in (0, 1, 3, 2)])
    assert answer["object"] == "list"
    _, answer = post(address, "/score", {"queries": ["a!", "b"], "documents": ["c", "d!"], "use_activation": False})
    assert [row["score"] for row in answer["data"]] == [1.0, 1.0]
    _, answer = post(address, "/rerank", {"query": QUERY, "documents": DOCUMENTS, "top_n": 1})
    assert answer["results"][0]["index"] == 2
    _, answer = post(address, "/pooling", {"model": "fake", "input": TEXTS, "dimensions": 32})
    np.testing.assert_allclose([row["data"] for row in answer["data"]], [unit(text, 32) for text in TEXTS], atol=1e-6)
    body = {"model": "fake", "input": TEXTS, "task": "token_embed", "use_activation": False}
    _, answer = post(address, "/pooling", body)
    assert [len(row["data"]) for row in answer["data"]] == [len(text) + 1 for text in TEXTS]
    assert answer["data"][0]["data"][-1] == FakeModel().vector("abba").tolist()
    _, answer = post(address, "/tokenize", {"model": "fake", "prompt": "ab"})
    assert answer == {"count": 3, "max_model_len": 8192, "tokens": [97, 98, 256], "token_strs": None}
    assert post(address, "/detokenize", {"tokens": [97]})[1] == {"prompt": "a"}
    status, error = post(address, "/score", {"text_1": "a"})
    assert status == 400
    assert error["error"]["type"] == "BadRequestError"
    assert error["error"]["code"] == 400


@pytest.mark.speaks("Jina", "request shapes", "POST /v1/embeddings, /v1/rerank, /rerank")
def test_jina_shapes(address: str) -> None:
    body = {"model": "fake", "task": "retrieval.query", "input": [{"text": "abba"}], "normalized": True}
    _, answer = post(address, "/v1/embeddings", body)
    np.testing.assert_allclose(answer["data"][0]["embedding"], unit("abba", prompt="query: "), atol=1e-6)
    for path in ("/v1/rerank", "/rerank"):
        body = {"model": "fake-reranker", "query": QUERY, "documents": DOCUMENTS, "return_documents": True}
        _, answer = post(address, path, body)
        assert [row["index"] for row in answer["results"]] == BEST
        assert answer["results"][0]["document"] == {"text": "three!!!"}
        assert answer["usage"]["total_tokens"] > 0
        assert answer["object"] == "list"


@pytest.mark.speaks("Jina", "request shapes", "errors")
def test_the_owner_of_a_shared_path_decides_how_errors_look(address: str) -> None:
    wrong = {"input": "a", "dimensions": 5}
    assert set(post(address, "/v1/embeddings", wrong)[1]["error"]) == {"message", "type", "param", "code"}
    status, error = post(address, "/v1/embeddings", wrong | {"task": "text-matching"})
    assert (status, set(error)) == (422, {"detail"})
    assert set(post(address, "/v1/rerank", {"query": "q"})[1]) == {"message", "detail"}
    assert set(post(address, "/v2/rerank", {"query": "q"})[1]) == {"message"}
    status, error = post(address, "/rerank", {"query": "q"})
    assert (status, set(error)) == (422, {"detail"})
    assert set(post(address, "/tokenize", {"prompt": 3})[1]["error"]) == {"message", "type", "param", "code"}
    assert set(post(address, "/api/embed", {})[1]) == {"error"}

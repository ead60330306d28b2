"""LangChain's own standard suites, and what they do not ask: dimensions, prompts, order, errors."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_tests.integration_tests import EmbeddingsIntegrationTests, RetrieversIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from pydantic import ValidationError
from sentence_transformers import CrossEncoder

from anydim import Embedder, Reranker
from anydim.errors import InvalidRequest
from anydim.integrations.langchain import AnydimEmbeddings, AnydimRerank, AnydimRetriever
from anydim.retrieval import Document as Page
from anydim.retrieval import Index
from tests.shelf import load_reference

TEXTS = ["Penguins are birds that cannot fly.", "A volcano throws out lava and ash.", "Lists are sorted by sorted()."]
FLOAT32: dict[str, Any] = {"dtype": "float32", "threads": 1}


@pytest.fixture(scope="module")
def local(minilm_folder: Path) -> Iterator[AnydimEmbeddings]:
    embeddings = AnydimEmbeddings(model=str(minilm_folder), model_kwargs=FLOAT32)
    yield embeddings
    embeddings.close()


@pytest.fixture(scope="module")
def remote(server: str) -> AnydimEmbeddings:
    return AnydimEmbeddings(base_url=server, api_key="s3cret-key", model_kwargs={"output_dim": 64})


@pytest.fixture(scope="module")
def rerank(cross_folder: Path) -> Iterator[AnydimRerank]:
    compressor = AnydimRerank(model=str(cross_folder), top_n=2, model_kwargs=FLOAT32)
    yield compressor
    compressor.close()


class TestUnits(EmbeddingsUnitTests):
    """The standard unit suite."""

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return AnydimEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model_kwargs": {"output_dim": 64}}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"ANYDIM_CLIENT_KEY": "k"}, {"base_url": "http://127.0.0.1:1"}, {"api_key": "k"}


class TestLocal(EmbeddingsIntegrationTests):
    """The standard integration suite, in this process."""

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return AnydimEmbeddings

    @pytest.fixture
    def model(self, local: AnydimEmbeddings) -> Embeddings:
        return local


class TestRemote(EmbeddingsIntegrationTests):
    """The standard integration suite, to a server."""

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return AnydimEmbeddings

    @pytest.fixture
    def model(self, remote: AnydimEmbeddings) -> Embeddings:
        return remote


@pytest.fixture(scope="class")
def index(minilm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    with (
        Embedder(str(minilm_folder), **FLOAT32) as embedder,
        Index(str(tmp_path_factory.mktemp("index")), embedder) as index,
    ):
        index.add([Page(f"page-{place}", text, {"place": place}) for place, text in enumerate(TEXTS)])
        yield index


class TestRetriever(RetrieversIntegrationTests):
    """The standard suite of retrievers, over an index."""

    @pytest.fixture(autouse=True)
    def _over(self, index: Index) -> None:
        self._index = index

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return AnydimRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"index": self._index}

    @property
    def retriever_query_example(self) -> str:
        return "birds"

    def test_hits_carry_their_metadata_and_conditions_hold(self) -> None:
        found = AnydimRetriever(index=self._index, k=1).invoke("birds")
        assert (found[0].page_content, found[0].metadata["document"]) == (TEXTS[0], "page-0")
        rest = AnydimRetriever(index=self._index, where={"place": {">": 0}}).invoke("birds")
        assert {document.metadata["place"] for document in rest} == {1, 2}

    def test_a_third_stage_reranks(self, cross_folder: Path) -> None:
        with Reranker(str(cross_folder), **FLOAT32) as reranker:
            found = AnydimRetriever(index=self._index, score=reranker.score).invoke("birds")
            scores = reranker.score("birds", [document.page_content for document in found])
        assert [document.metadata["score"] for document in found] == pytest.approx(sorted(scores, reverse=True))


def test_vectors_are_those_of_sentence_transformers_cut_to_the_dimension(
    local: AnydimEmbeddings, remote: AnydimEmbeddings, minilm_folder: Path
) -> None:
    reference = load_reference(minilm_folder).encode(TEXTS)
    np.testing.assert_allclose(local.embed_documents(TEXTS), reference, atol=1e-5)
    cut = reference[:, :64] / np.linalg.norm(reference[:, :64], axis=1, keepdims=True)
    np.testing.assert_allclose(remote.embed_documents(TEXTS), cut, atol=1e-5)
    np.testing.assert_allclose(asyncio.run(remote.aembed_query(TEXTS[0])), cut[0], atol=1e-5)


def test_queries_and_documents_get_the_prompts_of_the_model(starter_folder: Path) -> None:
    embeddings = AnydimEmbeddings(model=str(starter_folder), model_kwargs={"output_dim": 64, **FLOAT32})
    query, document = embeddings.embed_query("birds"), embeddings.embed_documents(["birds"])[0]
    assert len(query) == len(document) == 64
    assert np.dot(query, document) < 0.999
    assert embeddings.embed_documents([]) == []
    embeddings.close()


def test_more_texts_than_one_request_holds_come_back_in_order(
    remote: AnydimEmbeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anydim.integrations.remote._BATCH", 2)
    np.testing.assert_allclose(remote.embed_documents(TEXTS), [remote.embed_query(text) for text in TEXTS], atol=1e-6)


def test_errors_name_the_field(local: AnydimEmbeddings, server: str, minilm_folder: Path) -> None:
    wrong = AnydimEmbeddings(base_url=server, api_key="s3cret-key", model_kwargs={"output_dim": 50})
    with pytest.raises(openai.BadRequestError, match="output_dim must be a multiple of 32"):
        wrong.embed_query("x")
    with pytest.raises(openai.AuthenticationError):
        AnydimEmbeddings(base_url=f"{server}/v1/", api_key="another").embed_query("x")
    with pytest.raises(InvalidRequest, match="output_dim"):
        AnydimEmbeddings(model=str(minilm_folder), model_kwargs={"output_dim": 50, **FLOAT32}).embed_query("x")
    with pytest.raises(ValidationError, match="device is a setting of the server"):
        AnydimEmbeddings(base_url=server, model_kwargs={"device": "cpu"})
    with pytest.raises(ValidationError, match="modle"):
        AnydimEmbeddings(modle="x")
    with pytest.raises(ValidationError, match="model is missing"):
        AnydimRerank()
    assert "s3cret" not in repr(wrong)


def test_documents_are_reranked_as_sentence_transformers_scores_them(rerank: AnydimRerank, cross_folder: Path) -> None:
    documents = [Document(text, metadata={"place": place}) for place, text in enumerate(TEXTS)]
    scores = CrossEncoder(str(cross_folder), device="cpu").predict([("birds", text) for text in TEXTS])
    best = rerank.compress_documents(documents, "birds")
    assert [document.metadata["place"] for document in best] == np.argsort(-scores)[:2].tolist()
    found = [document.metadata["relevance_score"] for document in best]
    np.testing.assert_allclose(found, np.sort(scores)[::-1][:2], atol=1e-4)
    assert "relevance_score" not in documents[0].metadata
    assert [one.page_content for one in asyncio.run(rerank.acompress_documents(documents, "birds"))] == [
        one.page_content for one in best
    ]
    assert list(rerank.compress_documents([], "birds")) == []


def test_a_server_reranks_as_this_process_does(rerank: AnydimRerank, rerank_server: str) -> None:
    documents = [Document(text) for text in TEXTS]
    remote = AnydimRerank(base_url=rerank_server, top_n=None)
    found, expected = remote.compress_documents(documents, "birds"), rerank.compress_documents(documents, "birds")
    assert len(found) == 3
    assert [document.page_content for document in found[:2]] == [document.page_content for document in expected]
    scores = [[document.metadata["relevance_score"] for document in each[:2]] for each in (found, expected)]
    np.testing.assert_allclose(*scores, atol=1e-4)
    again = asyncio.run(remote.acompress_documents(documents, "birds"))
    assert [document.page_content for document in again] == [document.page_content for document in found]
    with pytest.raises(openai.BadRequestError, match="instruction"):
        AnydimRerank(base_url=rerank_server, model_kwargs={"instruction": "x"}).compress_documents(documents, "birds")

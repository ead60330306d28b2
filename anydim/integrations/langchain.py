"""LangChain: AnydimEmbeddings, AnydimRerank and AnydimRetriever, in this process or to a server.

It translates between LangChain's classes and ours, and adds nothing of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final, Self

from langchain_core.callbacks import CallbackManagerForRetrieverRun, Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.utils import secret_from_env
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from anydim.embedder import Embedder
from anydim.integrations.remote import Remote
from anydim.reranker import Reranker
from anydim.retrieval.index import Index
from anydim.retrieval.stages import Score

__all__ = ["AnydimEmbeddings", "AnydimRerank", "AnydimRetriever"]

KEY_VARIABLE: Final = "ANYDIM_CLIENT_KEY"

_EMBED_OPTIONS: Final = frozenset({"output_dim", "instruction", "prompt_name", "truncate", "normalize"})
_SCORE_OPTIONS: Final = frozenset({"instruction", "truncate"})


class _Place(BaseModel):
    """Where a model runs: in this process, or behind a server's address."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), ignored_types=(cached_property,))

    model: str | None = Field(default=None, description="Hub id or folder; with base_url a name that the server knows.")
    base_url: str | None = Field(default=None, description="A server, such as http://127.0.0.1:30000.")
    api_key: SecretStr | None = Field(
        default_factory=secret_from_env(KEY_VARIABLE, default=None), description="The server's key."
    )
    timeout: float = Field(default=600.0, description="Seconds of one request to a server.")
    model_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Fields of each request, and in this process settings of the model."
    )


class AnydimEmbeddings(_Place, Embeddings):
    """Embeddings of any dimension.

    In this process: ``AnydimEmbeddings(model="Qwen/Qwen3-Embedding-0.6B", model_kwargs={"output_dim": 512})``; without
    a model the starter model. With ``base_url`` a server is asked. ``model_kwargs`` holds ``output_dim``,
    ``instruction`` (for queries), ``truncate`` and the like, and in this process also settings such as ``device``.
    """

    @model_validator(mode="after")
    def _check(self) -> Self:
        _refuse_settings(self, _EMBED_OPTIONS)
        return self

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Vectors of documents."""
        return self._embed(texts, "document")

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query, with the prompt that the model has for queries."""
        return self._embed([text], "query")[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """``embed_documents`` without blocking the event loop."""
        return await self._aembed(texts, "document")

    async def aembed_query(self, text: str) -> list[float]:
        """``embed_query`` without blocking the event loop."""
        return (await self._aembed([text], "query"))[0]

    def close(self) -> None:
        """Free the model, where it runs in this process and was used."""
        if "_embedder" in self.__dict__:
            self.__dict__.pop("_embedder").close()

    def _embed(self, texts: list[str], input_type: str) -> list[list[float]]:
        if not texts:
            return []
        if self.base_url is not None:
            return self._remote.embed(texts, self._options(input_type))
        return [row.tolist() for row in self._embedder.embed(texts, **self._options(input_type))]

    async def _aembed(self, texts: list[str], input_type: str) -> list[list[float]]:
        if not texts:
            return []
        if self.base_url is not None:
            return await self._remote.aembed(texts, self._options(input_type))
        return [row.tolist() for row in await self._embedder.aembed(texts, **self._options(input_type))]

    def _options(self, input_type: str) -> dict[str, Any]:
        """The fields of a request: an instruction is for queries alone, and goes before the model's own prompt."""
        given = {name: value for name, value in self.model_kwargs.items() if name in _EMBED_OPTIONS}
        if input_type == "document":
            given.pop("instruction", None)
        has_own = "instruction" in given or "prompt_name" in given
        return given if has_own else {**given, "input_type": input_type}

    @cached_property
    def _embedder(self) -> Embedder:
        return Embedder(self.model, show_progress=False, **_settings(self, _EMBED_OPTIONS))

    @cached_property
    def _remote(self) -> Remote:
        return _remote(self)


class AnydimRerank(_Place, BaseDocumentCompressor):
    """Keeps the documents that a reranker finds most relevant, best first, with ``relevance_score`` in their metadata.

    In this process ``AnydimRerank(model="Qwen/Qwen3-Reranker-0.6B")``; with ``base_url`` a server that has a reranker.
    """

    top_n: int | None = Field(default=3, ge=1, description="How many documents to keep; None keeps all.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        _refuse_settings(self, _SCORE_OPTIONS)
        if self.base_url is None and self.model is None:
            raise ValueError("model is missing: a reranker's hub id or folder, or base_url for a server")
        return self

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """The best ``top_n`` documents."""
        texts = [document.page_content for document in documents]
        if not texts:
            return []
        options = self._options()
        if self.base_url is not None:
            return self._best(documents, self._remote.score(query, texts, options))
        return self._best(documents, self._reranker.score(query, texts, **options).tolist())

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """``compress_documents`` without blocking the event loop."""
        texts = [document.page_content for document in documents]
        if not texts:
            return []
        if self.base_url is not None:
            return self._best(documents, await self._remote.ascore(query, texts, self._options()))
        return self._best(documents, (await self._reranker.ascore(query, texts, **self._options())).tolist())

    def close(self) -> None:
        """Free the model, where it runs in this process and was used."""
        if "_reranker" in self.__dict__:
            self.__dict__.pop("_reranker").close()

    def _options(self) -> dict[str, Any]:
        return {name: value for name, value in self.model_kwargs.items() if name in _SCORE_OPTIONS}

    def _best(self, documents: Sequence[Document], scores: Sequence[float]) -> list[Document]:
        order = sorted(range(len(scores)), key=lambda place: -scores[place])[: self.top_n]
        return [_judged(documents[place], scores[place]) for place in order]

    @cached_property
    def _reranker(self) -> Reranker:
        assert self.model is not None  # checked when it was made
        return Reranker(self.model, show_progress=False, **_settings(self, _SCORE_OPTIONS))

    @cached_property
    def _remote(self) -> Remote:
        return _remote(self)


class AnydimRetriever(BaseRetriever):
    """Documents of an ``anydim.retrieval.Index``, found in its stages; scores stand in the documents' metadata."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    index: Index
    k: int = Field(default=10, ge=1, description="How many documents to return.")
    candidates: int | None = Field(default=None, description="Chunks that the first stage hands on.")
    where: Any = Field(default=None, description="Conditions on metadata, as in Index.search.")
    score: Score | None = Field(default=None, description="A cross-encoder for a third stage, such as Reranker.score.")

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        found = self.index.search(
            query, top_k=k or self.k, candidates=self.candidates, where=self.where, score=self.score
        )
        return [
            Document(
                id=f"{hit.document}#{hit.chunk}",
                page_content=hit.text,
                metadata={**hit.metadata, "document": hit.document, "chunk": hit.chunk, "score": hit.score},
            )
            for hit in found.hits
        ]


def _judged(document: Document, score: float) -> Document:
    """A copy: the caller's own documents stay as they are."""
    return document.model_copy(update={"metadata": {**document.metadata, "relevance_score": score}})


def _settings(place: _Place, options: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in place.model_kwargs.items() if name not in options}


def _refuse_settings(place: _Place, options: frozenset[str]) -> None:
    """Settings of the model are the server's own business where a server is asked."""
    rest = sorted(_settings(place, options))
    if place.base_url is not None and rest:
        known = ", ".join(sorted(options))
        raise ValueError(f"model_kwargs: {rest[0]} is a setting of the server; a request may have {known}")


def _remote(place: _Place) -> Remote:
    assert place.base_url is not None
    key = place.api_key.get_secret_value() if place.api_key else None
    return Remote(place.base_url, place.model, key, place.timeout)

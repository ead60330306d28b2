"""Routes: POST /v1/search on a served index, for the server to compose. The query goes through the server's own engine,
and so do the texts of the third stage.

It knows HTTP, the served models and the stages; it knows no database's client and no torch.

Legend: D full dimension.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from anydim.api.app import Entrance
from anydim.api.models import Models
from anydim.api.operations import Operation
from anydim.api.service import Service, json_response, terms
from anydim.api.status import Dialect
from anydim.config import IndexSettings
from anydim.errors import ConfigError, InvalidRequest, Unavailable
from anydim.intake.request import EmbedRequest, InputType, ScoreRequest, Truncate
from anydim.retrieval.layout import PROBE, Layout, check_model, check_probe, read_layout
from anydim.retrieval.stages import Hit, SearchResult, Stage, check_query, find, reranked
from anydim.retrieval.store import Store, open_store, without_password
from anydim.types import Float32Array

_Count = Annotated[int, Meta(ge=1, le=1000)]
_Candidates = Annotated[int, Meta(ge=1, le=10_000)]


class SearchRequest(msgspec.Struct, kw_only=True):
    """What to search for. Every field but `query` may be left out or null."""

    query: Annotated[str, Meta(description="A text.", examples=["how do I sort a list?"])]
    model: Annotated[str | None, Meta(description="A name of the served model that the index was made with.")] = None
    top_k: Annotated[_Count | None, Meta(description="How many hits; what the server was told otherwise.")] = None
    candidates: Annotated[_Candidates | None, Meta(description="Chunks that the first stage hands on.")] = None
    where: Annotated[
        dict[str, Any] | None,
        Meta(
            description="Conditions on metadata: a value, a list of values, or an object of comparisons a field.",
            examples=[{"lang": "en", "year": {">=": 2020}}],
        ),
    ] = None
    instruction: Annotated[str | None, Meta(description="The task, for models trained with instructions.")] = None
    per_document: Annotated[bool | None, Meta(description="At most one hit a document.")] = None
    rerank: Annotated[
        bool | str | None,
        Meta(description="Whether a served reranker judges the best hits again, or which one; not by default."),
    ] = None
    priority: Annotated[str | None, Meta(description="high, normal or low.")] = None
    timeout: Annotated[float | None, Meta(description="Seconds that the client waits.")] = None


class SearchAnswer(msgspec.Struct, kw_only=True):
    """Hits, best first, and what each stage did."""

    object: Literal["list"] = "list"
    data: list[Hit]
    stages: list[Stage]
    model: str


@dataclass(frozen=True, slots=True)
class ServedIndex:
    """An index that a server answers from.

    Attributes:
        store: the database.
        layout: how it was made.
        settings: what a search does unless the request says otherwise.
    """

    store: Store
    layout: Layout
    settings: IndexSettings


class SearchRoutes:
    """The routes of one index."""

    def __init__(self, service: Service, index: ServedIndex) -> None:
        """Search an index with the models behind a service."""
        self._service, self._index = service, index
        self._served = service.models.embedder()[0]
        self._decoder = service.decoder(SearchRequest)
        self._is_checked = False

    def operations(self) -> list[Operation]:
        """The route with and without the /v1 prefix."""
        return [
            Operation(
                path=f"{prefix}/search",
                name=f"search{suffix}",
                summary="Find chunks of the served index.",
                dialect=Dialect.OPENAI,
                handler=self.search,
                body=SearchRequest,
                answer=SearchAnswer,
                example={"query": "how do I sort a list?", "top_k": 3},
            )
            for prefix, suffix in (("/v1", ""), ("", "_without_prefix"))
        ]

    async def search(self, request: Request) -> Response:
        """POST /v1/search."""
        wanted = self._decoder.decode(await self._service.read(request))
        if self._service.models.embedder(wanted.model)[0] is not self._served:
            raise InvalidRequest(f"the index was made with {self._served.names[0]}", "model")
        check_query(wanted.query)
        reranker = self._reranker(wanted)
        if not self._is_checked:
            await self._check(request, wanted)
        input_type = None if wanted.instruction else InputType.QUERY
        query_D = await self._embed(request, wanted, wanted.query, input_type, wanted.instruction)
        index, settings = self._index, self._asked(wanted)
        arguments = (index.store, index.layout, query_D, settings, wanted.where, wanted.per_document is True)
        found = await asyncio.to_thread(find, *arguments, reranker is not None)
        if reranker is not None:
            found = await self._rerank(request, wanted, found, reranker, settings.top_k)
        return json_response(SearchAnswer(data=found.hits, stages=found.stages, model=self._served.names[0]))

    def _reranker(self, wanted: SearchRequest) -> str | None:
        """The name of the reranker that was asked for, known to the server; None where none was."""
        if wanted.rerank is None or wanted.rerank is False:
            return None
        return self._service.models.reranker(None if wanted.rerank is True else wanted.rerank)[0].names[0]

    def _asked(self, wanted: SearchRequest) -> IndexSettings:
        settings = self._index.settings
        return replace(
            settings, top_k=wanted.top_k or settings.top_k, candidates=wanted.candidates or settings.candidates
        )

    async def _check(self, request: Request, wanted: SearchRequest) -> None:
        """Once, before the first search: does the model still give the vectors of the index?"""
        vector_D = await self._embed(request, wanted, PROBE, InputType.DOCUMENT)
        try:
            check_probe(self._index.layout, vector_D)
        except ConfigError as error:
            raise Unavailable(error.message) from None
        self._is_checked = True

    async def _embed(
        self,
        request: Request,
        wanted: SearchRequest,
        text: str,
        input_type: InputType | None,
        instruction: str | None = None,
    ) -> Float32Array:
        asked = EmbedRequest(
            inputs=[text],
            output_dim=self._index.layout.dim,
            input_type=input_type,
            instruction=instruction,
            truncate=Truncate.END,
            terms=terms(request, wanted),
        )
        job = self._service.embed(wanted, wanted.model, asked)
        _, answer = await self._service.run(request, lambda request, body: job, b"")
        return np.asarray(answer.outputs[0].values, np.float32)

    async def _rerank(
        self, request: Request, wanted: SearchRequest, found: SearchResult, reranker: str, count: int
    ) -> SearchResult:
        """The third stage: as ``stages.rerank``, with the server's own engine."""
        began = time.perf_counter()
        hits: Sequence[Hit] = found.hits
        scores: Sequence[float] = ()
        if hits:
            asked = ScoreRequest(
                queries=[wanted.query], documents=[hit.text for hit in hits], terms=terms(request, wanted)
            )
            job = await asyncio.to_thread(self._service.rerank, wanted, reranker, asked)
            _, answer = await self._service.run(request, lambda request, body: job, b"")
            scores = answer.scores
        best = reranked(hits, scores, count)
        stage = Stage("rerank", reranker, len(best), 1e3 * (time.perf_counter() - began))
        return SearchResult(best, [*found.stages, stage])


def search_entrance(models: Models, settings: IndexSettings) -> list[Entrance]:
    """What adds the routes of the index that the settings name to a server; nothing where they name no database.

    Raises:
        ConfigError: there is no such index, or it was made with another model.
        MissingExtra: the database's client is not installed.
        Unavailable: the database does not answer.
    """
    if settings.db is None:
        return []
    _, intake = models.embedder()
    store = open_store(settings.db, settings.collection)
    body = store.read_layout()
    if body is None:
        store.close()
        place = without_password(settings.db)
        raise ConfigError(f"there is no index named {settings.collection} at {place}")
    layout = read_layout(body)
    check_model(layout, intake.card)
    index = ServedIndex(store, layout, settings)
    return [lambda service: SearchRoutes(service, index).operations()]

"""Routes: POST /v1/search on a served index, for the server to compose. The query goes through the server's own engine.

It knows HTTP, the served model and the stages; it knows no database's client and no torch.

Legend: D full dimension.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from anydim.api.body import BodyDecoder, read_body
from anydim.api.models import Models
from anydim.api.terms import terms_of
from anydim.api.vectors import refuse_failed
from anydim.api.waiting import run_for_client
from anydim.config import IndexSettings, ServerSettings
from anydim.engine.handle import EngineHandle
from anydim.errors import ConfigError, InvalidRequest, Unavailable
from anydim.intake.request import EmbedRequest, InputType, Truncate
from anydim.retrieval.layout import PROBE, Layout, check_model, check_probe, read_layout
from anydim.retrieval.stages import Hit, Stage, check_query, find
from anydim.retrieval.store import Store, open_store, without_password
from anydim.types import Float32Array, Terms

_Count = Annotated[int, Meta(ge=1, le=1000)]
_Candidates = Annotated[int, Meta(ge=1, le=10_000)]
_PATHS: Final = ("/v1/search", "/search")


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
    priority: Annotated[str | None, Meta(description="high, normal or low.")] = None
    timeout: Annotated[float | None, Meta(description="Seconds that the client waits.")] = None


class SearchAnswer(msgspec.Struct, kw_only=True):
    """Hits, best first, and what each stage did."""

    object: Literal["list"] = "list"
    data: list[Hit]
    stages: list[Stage]
    model: str


class SearchRoutes:
    """The routes of one index."""

    def __init__(self, models: Models, engine: EngineHandle, settings: IndexSettings, server: ServerSettings) -> None:
        """Open the index that the settings name.

        Raises:
            ConfigError: there is no such index, or it was made with another model.
            MissingExtra: the database's client is not installed.
            Unavailable: the database does not answer.
        """
        self._models, self._engine, self._settings = models, engine, settings
        self._served, self._intake = models.embedder()
        self._store, self._layout = _opened(settings)
        check_model(self._layout, self._intake.card)
        self._decoder = BodyDecoder(SearchRequest, server.strict)
        self._limit = server.max_body_bytes
        self._is_checked = False

    def routes(self) -> list[Route]:
        """The route with and without the /v1 prefix."""
        return [Route(path, self.search, methods=["POST"]) for path in _PATHS]

    async def search(self, request: Request) -> Response:
        """POST /v1/search."""
        wanted = self._decoder.decode(await read_body(request, self._limit))
        if self._models.embedder(wanted.model)[0] is not self._served:
            raise InvalidRequest(f"the index was made with {self._served.names[0]}", "model")
        check_query(wanted.query)
        terms = terms_of(request, wanted.priority, wanted.timeout)
        if not self._is_checked:
            await self._check(request, terms)
        input_type = None if wanted.instruction else InputType.QUERY
        query_D = await self._embed(request, wanted.query, input_type, terms, wanted.instruction)
        found = await asyncio.to_thread(
            find, self._store, self._layout, query_D, self._asked(wanted), wanted.where, wanted.per_document is True
        )
        answer = SearchAnswer(data=found.hits, stages=found.stages, model=self._served.names[0])
        return Response(msgspec.json.encode(answer), media_type="application/json")

    def _asked(self, wanted: SearchRequest) -> IndexSettings:
        top_k, candidates = wanted.top_k or self._settings.top_k, wanted.candidates or self._settings.candidates
        return replace(self._settings, top_k=top_k, candidates=candidates)

    async def _check(self, request: Request, terms: Terms) -> None:
        """Once, before the first search: does the model still give the vectors of the index?"""
        vector_D = await self._embed(request, PROBE, InputType.DOCUMENT, terms)
        try:
            check_probe(self._layout, vector_D)
        except ConfigError as error:
            raise Unavailable(error.message) from None
        self._is_checked = True

    async def _embed(
        self, request: Request, text: str, input_type: InputType | None, terms: Terms, instruction: str | None = None
    ) -> Float32Array:
        asked = EmbedRequest(
            inputs=[text],
            output_dim=self._layout.dim,
            input_type=input_type,
            instruction=instruction,
            truncate=Truncate.END,
            terms=terms,
        )
        outputs = await run_for_client(self._engine, self._intake.prepare(asked), request.receive)
        refuse_failed(outputs)
        return np.asarray(outputs[0].values, np.float32)


def search_routes(models: Models, engine: EngineHandle, settings: IndexSettings, server: ServerSettings) -> list[Route]:
    """The routes of the index that the settings name; none where they name no database.

    Raises:
        ConfigError, MissingExtra, Unavailable: see SearchRoutes.
    """
    return SearchRoutes(models, engine, settings, server).routes() if settings.db is not None else []


def _opened(settings: IndexSettings) -> tuple[Store, Layout]:
    address = settings.db or ""
    store = open_store(address, settings.collection)
    body = store.read_layout()
    if body is None:
        store.close()
        raise ConfigError(f"there is no index named {settings.collection} at {without_password(address)}")
    return store, read_layout(body)

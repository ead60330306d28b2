"""The application: routes and middleware around the served models. Entrances may hand in further operations.

It knows Starlette; it knows no model, no tokenizer and no device. Middleware from the outside in: the observer, traces
and CORS (where they are asked for), the envelope, the keys or, where there are none, the guard of origins.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from anydim.api.auth import KeyGuard, KeyRing
from anydim.api.dialects.cohere import CohereRoutes
from anydim.api.dialects.ollama import OllamaRoutes
from anydim.api.dialects.openai import OpenAIRoutes
from anydim.api.dialects.rerank import RerankRoutes
from anydim.api.dialects.shared import SharedRoutes
from anydim.api.dialects.tei import TeiRoutes
from anydim.api.dialects.vllm import VllmRoutes
from anydim.api.engine_metrics import EngineCollector
from anydim.api.envelope import Envelope
from anydim.api.info import InfoRoutes
from anydim.api.metrics import BUILD, HttpMetrics, MetricsRoutes
from anydim.api.models import Models
from anydim.api.observe import Observer, RouteNames, TimedEngine
from anydim.api.operations import Operation
from anydim.api.origin import OriginGuard
from anydim.api.pages import PageRoutes
from anydim.api.probes import Draining, ProbeRoutes
from anydim.api.service import Service
from anydim.api.shell import ShellRoutes
from anydim.api.status import dialect_of, http_error_response
from anydim.api.tracing import TracedEngine, Tracing, make_provider
from anydim.api.words import bounded
from anydim.config import ServerSettings
from anydim.engine.handle import EngineHandle
from anydim.version import VERSION

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_TRACER: Final = "anydim"
_EXPOSED: Final = (
    "X-Request-Id",
    "Retry-After",
    "X-Model",
    "X-Embedding-Shape",
    "X-Embedding-Dtype",
    "X-Embedding-Dimensions",
    "X-Usage-Prompt-Tokens",
    "X-Usage-Total-Tokens",
)

Entrance = Callable[[Service], Sequence[Operation]]
"""What an entrance hands in: the shared service -> the operations that it adds."""


def create_app(
    models: Models,
    engine: EngineHandle,
    settings: ServerSettings,
    *,
    keys: KeyRing | None = None,
    hosts: Collection[str] | None = None,
    spans: TracerProvider | None = None,
    stop: Callable[[], Awaitable[None]] | None = None,
    entrances: Sequence[Entrance] = (),
) -> Starlette:
    """Build the ASGI application of one front end.

    Args:
        models: the served models.
        engine: what runs its Items.
        settings: keys, limits and origins.
        keys: the keys, where the caller has read them from the settings already and may reload them.
        hosts: the names that Host headers may have where there are no keys; None for all.
        spans: what collects traces; by default what ``--otlp-endpoint`` asks for, if anything.
        stop: awaited when the server shuts down, after the last answer.
        entrances: what adds further operations; they stand behind the keys and in /openapi.json like ours.

    Returns:
        The application; ``app.state.draining`` is the Draining that its owner sets before it stops, and
        ``app.state.metrics`` its HttpMetrics.

    Raises:
        ConfigError: a key or the file of keys is wrong.
        MissingExtra: traces are asked for and OpenTelemetry is not installed.
    """
    draining, metrics = Draining(), HttpMetrics()
    for served in models:
        metrics.set(BUILD, VERSION, served.id, value=1)
    if spans is None and settings.otlp_endpoint:
        spans = make_provider(settings.otlp_endpoint)
    if spans is not None:
        engine = TracedEngine(engine, spans.get_tracer(_TRACER))
    engine = TimedEngine(engine)
    metrics.show_too(EngineCollector(engine))
    if keys is None:
        keys = KeyRing.of(settings)
    service = Service(models, engine, settings)
    operations = [*_operations(service), *InfoRoutes(models, engine, settings).operations()]
    operations += [operation for entrance in entrances for operation in entrance(service)]
    every = [
        *(operation.route() for operation in operations),
        *ProbeRoutes(engine, draining).routes(),
        *MetricsRoutes(metrics).routes(),
        *PageRoutes(operations, keys is not None).routes(),
        *ShellRoutes().routes(),
    ]
    names = RouteNames(every)
    outer = [Middleware(Observer, metrics=metrics, names=names, settings=settings)]
    if spans is not None:
        outer.append(Middleware(Tracing, tracer=spans.get_tracer(_TRACER), route_of=names.of))
    app = Starlette(
        routes=every,
        middleware=[*outer, *_middleware(settings, keys, hosts)],
        exception_handlers={HTTPException: _on_http},
        lifespan=_lifespan(stop, spans),
    )
    app.state.draining = draining
    app.state.metrics = metrics
    return app


def _operations(service: Service) -> list[Operation]:
    """The routes of all dialects."""
    rerank, tei, vllm = RerankRoutes(service), TeiRoutes(service), VllmRoutes(service)
    every = (
        OpenAIRoutes(service),
        rerank,
        CohereRoutes(service),
        tei,
        vllm,
        OllamaRoutes(service),
        SharedRoutes(service, rerank, tei, vllm),
    )
    return [operation for dialect in every for operation in dialect.operations()]


def _middleware(settings: ServerSettings, keys: KeyRing | None, hosts: Collection[str] | None) -> list[Middleware]:
    found = [Middleware(Envelope)]
    if settings.cors_origin:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origin,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=_EXPOSED,
        )
        found.insert(0, cors)
    if keys is not None:
        found.append(Middleware(KeyGuard, keys=keys))
    else:
        found.append(Middleware(OriginGuard, origins=settings.cors_origin, hosts=hosts))
    return found


def _lifespan(
    stop: Callable[[], Awaitable[None]] | None, spans: TracerProvider | None
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            if stop is not None:
                await stop()
            if spans is not None:
                await asyncio.to_thread(spans.shutdown)  # it sends what it holds

    return lifespan


async def _on_http(request: Request, error: Exception) -> Response:
    """What HTTP itself refuses, in the dialect's shape."""
    if not isinstance(error, HTTPException):
        raise error
    path = request.url.path
    message, code = error.detail, None
    if error.status_code == 404:
        message, code = f"Invalid URL ({request.method} {path[:200]})", "unknown_url"
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"Not allowed to {request.method} on {path[:200]}; allowed: {allowed}"
        code = "method_not_supported"
    return http_error_response(error.status_code, bounded(message), dialect_of(path), code, error.headers)

"""Tracing: a span a request and one for its time in the engine, sent to an OpenTelemetry collector.

A `traceparent` that comes in is continued (W3C Trace Context). Spans hold routes, statuses and sizes, no texts. The SDK
is an optional extra and is imported when an endpoint is set.

Source: https://opentelemetry.io/docs/specs/semconv/http/http-spans/.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anydim.engine.handle import EngineHandle, Passing
from anydim.errors import MissingExtra
from anydim.types import Item, Output

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

_NAME: Final = "anydim"


def make_provider(endpoint: str) -> TracerProvider:
    """What collects spans and sends them in batches to an OTLP/HTTP endpoint, such as http://127.0.0.1:4318/v1/traces.

    Raises:
        MissingExtra: the SDK is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise MissingExtra("--otlp-endpoint needs a package: pip install 'anydim[otel]'") from None
    provider = TracerProvider(resource=Resource.create({"service.name": _NAME}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return provider


class Tracing:
    """Middleware that makes the span of a request; its id stands in ``state["trace_id"]`` for the log."""

    def __init__(self, app: ASGIApp, tracer: Tracer, route_of: Callable[[Scope], str]) -> None:
        """Trace an application; ``route_of`` tells the route of a request as it was declared."""
        self._app = app
        self._tracer = tracer
        self._route_of = route_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request inside a span."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        from opentelemetry.trace import SpanKind, format_trace_id
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        sent = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        parent = TraceContextTextMapPropagator().extract(sent)
        route = self._route_of(scope)
        attributes = {"http.request.method": scope["method"], "http.route": route, "url.scheme": scope["scheme"]}
        name = f"{scope['method']} {route}"
        with self._tracer.start_as_current_span(
            name, parent, SpanKind.SERVER, attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            scope.setdefault("state", {})["trace_id"] = format_trace_id(span.get_span_context().trace_id)
            await self._app(scope, receive, _noting(send, span))


class TracedEngine(Passing):
    """An EngineHandle that makes a span of each call."""

    def __init__(self, engine: EngineHandle, tracer: Tracer) -> None:
        """Trace another handle."""
        super().__init__(engine)
        self._tracer = tracer

    async def run(self, items: Sequence[Item]) -> list[Output]:
        """See EngineHandle."""
        sizes = {"anydim.texts": len(items), "anydim.tokens": sum(len(item.ids) for item in items)}
        with self._tracer.start_as_current_span("engine", attributes=sizes, record_exception=False):
            return await self._engine.run(items)


def _noting(send: Send, span: Any) -> Send:
    async def note(message: Message) -> None:
        if message["type"] == "http.response.start":
            _note(span, message["status"])
        await send(message)

    return note


def _note(span: Any, status: int) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))

"""Traces: a client's trace goes on, a span a request and one for the engine, no text; over a real OTLP endpoint too."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.testclient import TestClient

from anydim import testing
from anydim.api.app import create_app
from anydim.api.models import Models, ServedModel
from anydim.config import ServerSettings

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SECRET = "a text of a user"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traced(exporter: InMemorySpanExporter) -> Iterator[TestClient]:
    spans = TracerProvider()
    spans.add_span_processor(SimpleSpanProcessor(exporter))
    with testing.engine() as engine:
        app = create_app(Models([ServedModel(intake=testing.intake())]), engine, ServerSettings(), spans=spans)
        with TestClient(app) as http:
            yield http


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_trace_goes_on_through_request_and_engine(traced: TestClient, exporter: InMemorySpanExporter) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    assert traced.post("/v1/embeddings", json={"input": [SECRET, "b"]}, headers=headers).status_code == 200
    spans = by_name(exporter)
    request, engine = spans["POST /v1/embeddings"], spans["engine"]
    assert f"{request.context.trace_id:032x}" == f"{engine.context.trace_id:032x}" == TRACE
    assert request.parent is not None and f"{request.parent.span_id:016x}" == PARENT
    assert engine.parent is not None and engine.parent.span_id == request.context.span_id
    assert request.kind is SpanKind.SERVER
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/embeddings",
        "url.scheme": "http",
        "http.response.status_code": 200,
    }
    assert engine.attributes == {"anydim.texts": 2, "anydim.tokens": len(SECRET) + 1 + 2}
    assert SECRET not in "".join(span.to_json() for span in spans.values())


@pytest.mark.parametrize("header", ["", "00-short-01", f"00-{'0' * 32}-{PARENT}-01", "x" * 500])
def test_a_broken_traceparent_begins_a_new_trace(
    traced: TestClient, exporter: InMemorySpanExporter, header: str
) -> None:
    assert traced.get("/v1/models/anydim/fake", headers={"traceparent": header}).status_code == 200
    span = by_name(exporter)["GET /v1/models/{name:path}"]
    assert span.parent is None
    assert span.status.status_code is StatusCode.UNSET


class Collector(ThreadingHTTPServer):
    """An OTLP/HTTP endpoint that keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Keep)
        self.spans: list[Any] = []


class Keep(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            import gzip

            body = gzip.decompress(body)
        found = ExportTraceServiceRequest.FromString(body)
        self.server.spans += [  # type: ignore[attr-defined]
            span for part in found.resource_spans for scope in part.scope_spans for span in scope.spans
        ]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words: Any) -> None:
        pass


def test_spans_reach_a_collector_before_the_server_ends() -> None:
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{collector.server_address[1]}/v1/traces"
        with testing.client(otlp_endpoint=url) as http:
            for _ in range(3):
                http.post("/v1/embeddings", json={"input": "a"})
        collector.shutdown()
    assert sorted(span.name for span in collector.spans) == ["POST /v1/embeddings"] * 3 + ["engine"] * 3


def test_the_log_names_the_trace_also_where_nothing_is_traced(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "anydim.requests"), testing.client(request_log="line") as http:
        http.get("/v1/models", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"})
        http.get("/v1/models", headers={"traceparent": "nonsense"})
    assert [record.fields.get("trace_id") for record in caplog.records] == [TRACE, None]  # type: ignore[attr-defined]

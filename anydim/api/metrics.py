"""Metrics of HTTP: what a front end counts, and GET /metrics in Prometheus' text format.

Every metric stands in HTTP_METRICS with its labels and its meaning; docs/metrics.md is written from there. Labels hold
routes, statuses and names of keys, never anything that a client may invent. It knows prometheus-client; it knows no
texts.

Several front ends of one server add up by prometheus-client's own means: where PROMETHEUS_MULTIPROC_DIR names a folder
that they share, each writes its numbers there and any of them answers with the sums.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, multiprocess
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SHARED: Final = "PROMETHEUS_MULTIPROC_DIR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric as it is documented.

    Attributes:
        name: as Prometheus shows it; a histogram's is followed by _bucket, _sum and _count.
        kind: counter, gauge or histogram.
        meaning: one sentence.
        labels: the names of its labels.
    """

    name: str
    kind: str
    meaning: str
    labels: tuple[str, ...] = ()


REQUESTS: Final = Metric(
    name="anydim_http_requests_total",
    kind="counter",
    meaning="Requests answered; status 499 where the client left first.",
    labels=("route", "method", "status"),
)
REQUEST_SECONDS: Final = Metric(
    name="anydim_http_request_seconds",
    kind="histogram",
    meaning="From a request's head to the last byte of its answer handed over.",
    labels=("route", "status"),
)
STAGE_SECONDS: Final = Metric(
    name="anydim_http_stage_seconds",
    kind="histogram",
    meaning="The parts of a request that ran a model: prepare (read, check, tokenise), engine (wait, run), encode.",
    labels=("stage",),
)
IN_FLIGHT: Final = Metric(name="anydim_http_requests_in_flight", kind="gauge", meaning="Requests under way.")
RECEIVED: Final = Metric(name="anydim_http_received_bytes_total", kind="counter", meaning="Bytes of request bodies.")
SENT: Final = Metric(name="anydim_http_sent_bytes_total", kind="counter", meaning="Bytes of answers' bodies.")
ERRORS: Final = Metric(
    name="anydim_http_errors_total",
    kind="counter",
    meaning="Requests that failed, by cause: the kind of the error, http for what HTTP refuses, crashed, client_gone.",
    labels=("cause",),
)
KEYS: Final = Metric(
    name="anydim_http_key_requests_total", kind="counter", meaning="Requests by the name of their key.", labels=("key",)
)
REFUSED: Final = Metric(
    name="anydim_http_connections_refused_total",
    kind="counter",
    meaning="Connections refused or let go: malformed, head_too_large, head_timeout, body_timeout, send_timeout, "
    "connections.",
    labels=("cause",),
)
BUILD: Final = Metric(
    name="anydim_build_info",
    kind="gauge",
    meaning="Always 1; tells version and model.",
    labels=("version", "model"),
)
HTTP_METRICS: Final = (
    REQUESTS,
    REQUEST_SECONDS,
    STAGE_SECONDS,
    IN_FLIGHT,
    RECEIVED,
    SENT,
    ERRORS,
    KEYS,
    REFUSED,
    BUILD,
)


class HttpMetrics:
    """The numbers of one front end."""

    def __init__(self) -> None:
        """Begin at zero."""
        self._registry = CollectorRegistry()
        self._others: list[Collector] = []
        self._children: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._metrics: dict[str, Any] = {metric.name: self._make(metric) for metric in HTTP_METRICS}
        if _SHARED not in os.environ:
            ProcessCollector(registry=self._registry)

    def add(self, metric: Metric, *labels: str, amount: float = 1) -> None:
        """Add to a counter, or to a gauge."""
        self._child(metric, labels).inc(amount)

    def set(self, metric: Metric, *labels: str, value: float) -> None:
        """Set a gauge."""
        self._child(metric, labels).set(value)

    def observe(self, metric: Metric, *labels: str, seconds: float) -> None:
        """Count a value of a histogram."""
        self._child(metric, labels).observe(seconds)

    def show_too(self, collector: Collector) -> None:
        """Show what another collector says beside the numbers of HTTP."""
        self._others.append(collector)
        if _SHARED not in os.environ:
            self._registry.register(collector)

    def shown(self, accept: str) -> tuple[bytes, str]:
        """All numbers: the text and its content type."""
        encode, kind = choose_encoder(accept)
        return encode(self._summed()), kind

    def _summed(self) -> CollectorRegistry:
        if _SHARED not in os.environ:
            return self._registry
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        for collector in self._others:
            registry.register(collector)
        return registry

    def _make(self, metric: Metric) -> Counter | Gauge | Histogram:
        common = (metric.name, metric.meaning, metric.labels)
        if metric.kind == "counter":
            return Counter(*common, registry=self._registry)
        if metric.kind == "histogram":
            return Histogram(*common, registry=self._registry, buckets=_SECONDS)
        mode = "livesum" if metric is IN_FLIGHT else "max"
        return Gauge(*common, registry=self._registry, multiprocess_mode=mode)  # type: ignore[arg-type]

    def _child(self, metric: Metric, labels: tuple[str, ...]) -> Any:
        """The number behind a metric and its labels, kept at hand: looking it up costs more than counting."""
        key = (metric.name, labels)
        found = self._children.get(key)
        if found is None:
            found = self._metrics[metric.name]
            found = self._children[key] = found.labels(*labels) if labels else found
        return found


class MetricsRoutes:
    """GET /metrics."""

    def __init__(self, metrics: HttpMetrics) -> None:
        """Show the numbers of one front end, or of all that share its folder."""
        self._metrics = metrics

    def routes(self) -> list[Route]:
        """The one route."""
        return [Route("/metrics", self.metrics, methods=["GET"])]

    async def metrics(self, request: Request) -> Response:
        """GET /metrics: Prometheus' text format, or OpenMetrics where it is asked for."""
        text, kind = await run_in_threadpool(self._metrics.shown, request.headers.get("accept", ""))
        return Response(text, headers={"Content-Type": kind})

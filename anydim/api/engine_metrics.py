"""Engine metrics: what the engine tells of itself, in Prometheus' terms, read anew for each GET /metrics.

The figures are the engine's own, so that every front end shows the same ones. It knows names and numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from anydim.api.metrics import Metric
from anydim.engine.handle import EngineHandle

ALIVE: Final = Metric(
    name="anydim_engine_alive", kind="gauge", meaning="1 while the engine's process runs and makes progress, else 0."
)
READY: Final = Metric(name="anydim_engine_ready", kind="gauge", meaning="1 while the engine takes requests, else 0.")
ENGINE_METRICS: Final = (ALIVE, READY)


class EngineCollector(Collector):
    """The numbers of one engine."""

    def __init__(self, engine: EngineHandle) -> None:
        """Ask one engine."""
        self._engine = engine

    def collect(self) -> Iterator[Family]:
        """Every metric with its value now."""
        health = self._engine.health()
        yield GaugeMetricFamily(ALIVE.name, ALIVE.meaning, float(health.alive))
        yield GaugeMetricFamily(READY.name, READY.meaning, float(health.ready))

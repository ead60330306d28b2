"""Engine metrics: what the engine tells of itself, in Prometheus' terms, read anew for each GET /metrics.

Names, kinds and meanings come from EngineCounts and its docstring, so that neither can lag behind the other: the field
`queued_tokens` is `anydim_engine_queued_tokens`, and what only grows ends in `_total`. The figures are the engine's
own, so that every front end shows the same ones. It knows names and numbers.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from anydim.api.metrics import Metric
from anydim.engine.handle import EngineHandle
from anydim.engine.metrics import EngineCounts, Histogram

ALIVE: Final = Metric(
    name="anydim_engine_alive", kind="gauge", meaning="1 while the engine's process runs and makes progress, else 0."
)
READY: Final = Metric(name="anydim_engine_ready", kind="gauge", meaning="1 while the engine takes requests, else 0.")
_PREFIX: Final = "anydim_engine_"
_TOTAL: Final = "_total"
_KINDS: Final = (("What is true now:", "gauge"), ("What only grows:", "counter"), ("Histograms:", "histogram"))
_LABELS: Final = (("errors", ("cause",)),)


def _declared() -> Iterator[Metric]:
    """The metrics of EngineCounts' fields, in the order and under the headings of its docstring."""
    text = inspect.getdoc(EngineCounts) or ""
    places = [(text.index(heading), kind) for heading, kind in _KINDS if heading in text]
    for (start, kind), (end, _) in zip(places, [*places[1:], (len(text), "")], strict=True):
        for found in re.finditer(r"(?m)^ {4}(\w+): ((?:.|\n(?= {8}))*)", text[start:end]):
            field, meaning = found[1], " ".join(found[2].split())
            yield Metric(
                name=_PREFIX + field + (_TOTAL if kind == "counter" else ""),
                kind=kind,
                meaning=meaning[:1].upper() + meaning[1:],
                labels=dict(_LABELS).get(field, ()),
            )


ENGINE_METRICS: Final = (ALIVE, READY, *_declared())


class EngineCollector(Collector):
    """The numbers of one engine."""

    def __init__(self, engine: EngineHandle) -> None:
        """Ask one engine."""
        self._engine = engine

    def collect(self) -> Iterator[Family]:
        """Every metric with its value now; only the first two where no engine runs."""
        health = self._engine.health()
        yield GaugeMetricFamily(ALIVE.name, ALIVE.meaning, float(health.alive))
        yield GaugeMetricFamily(READY.name, READY.meaning, float(health.ready))
        counts = self._engine.counts()
        if counts is not None:
            values = msgspec.structs.asdict(counts)
            for metric in ENGINE_METRICS[2:]:
                yield _family(metric, values[metric.name.removeprefix(_PREFIX).removesuffix(_TOTAL)])


def _family(metric: Metric, value: Any) -> Family:
    name = metric.name.removesuffix(_TOTAL)
    if isinstance(value, Histogram):
        bounds = [*(f"{bound:g}" for bound in value.bounds), "+Inf"]
        buckets = list(zip(bounds, accumulate(value.counts), strict=True))
        return HistogramMetricFamily(name, metric.meaning, buckets, value.total)
    if isinstance(value, dict):
        family = CounterMetricFamily(name, metric.meaning, labels=metric.labels)
        for label, count in sorted(value.items()):
            family.add_metric([label], count)
        return family
    kind = GaugeMetricFamily if metric.kind == "gauge" else CounterMetricFamily
    return kind(name, metric.meaning, float(value))

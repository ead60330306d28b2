"""Engine metrics: what the engine tells of itself, in Prometheus' terms, read anew for each GET /metrics.

Names, kinds and meanings come from EngineCounts and its docstring, so that neither can lag behind the other: the field
`queued_tokens` is `anydim_engine_queued_tokens`, and what only grows ends in `_total`. The figures are the engine's
own, so that every front end shows the same ones. Each of several engines has its place as a label. It knows names and
numbers.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from types import MappingProxyType
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
_ENGINE: Final = "engine"
_FAMILIES: Final[Mapping[str, Callable[..., Any]]] = MappingProxyType(
    {"gauge": GaugeMetricFamily, "counter": CounterMetricFamily, "histogram": HistogramMetricFamily}
)

Labels = tuple[str, ...]


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
    """The numbers of the engines; where there are several each has the label ``engine``, so that they add up."""

    def __init__(self, engine: EngineHandle) -> None:
        """Ask one engine, or those behind it."""
        self._engine = engine

    def collect(self) -> Iterator[Family]:
        """Every metric with its value now; only the first two of an engine that does not run."""
        engines = self._engine.engines()
        places = [(str(place),) if len(engines) > 1 else () for place in range(len(engines))]
        states = [engine.health() for engine in engines]
        yield _family(ALIVE, [(place, state.alive) for place, state in zip(places, states, strict=True)])
        yield _family(READY, [(place, state.ready) for place, state in zip(places, states, strict=True)])
        counted = [(place, engine.counts()) for place, engine in zip(places, engines, strict=True)]
        rows = [(place, msgspec.structs.asdict(counts)) for place, counts in counted if counts is not None]
        for metric in ENGINE_METRICS[2:] if rows else ():
            field = metric.name.removeprefix(_PREFIX).removesuffix(_TOTAL)
            yield _family(metric, [(place, values[field]) for place, values in rows])


def _family(metric: Metric, rows: Sequence[tuple[Labels, Any]]) -> Family:
    """A metric with its value at each engine."""
    name, own = metric.name.removesuffix(_TOTAL), (_ENGINE,) if any(place for place, _ in rows) else ()
    family: Any = _FAMILIES[metric.kind](name, metric.meaning, labels=(*own, *metric.labels))
    for place, value in rows:
        if isinstance(value, Histogram):
            bounds = [*(f"{bound:g}" for bound in value.bounds), "+Inf"]
            family.add_metric(place, list(zip(bounds, accumulate(value.counts), strict=True)), value.total)
        elif isinstance(value, dict):
            for label, count in sorted(value.items()):
                family.add_metric((*place, label), count)
        else:
            family.add_metric(place, float(value))
    made: Family = family
    return made

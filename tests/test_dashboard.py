"""The Grafana dashboard: it can be imported, names only metrics that exist, and leaves none of importance out."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from anydim.api.engine_metrics import ENGINE_METRICS
from anydim.api.metrics import BUILD, HTTP_METRICS, Metric
from anydim.cli.docs import FOLDER


@pytest.fixture(scope="module")
def dashboard() -> Any:
    return json.loads((FOLDER / "grafana-dashboard.json").read_text(encoding="utf-8"))


def expressions(dashboard: Any) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]


def shown(metric: Metric) -> set[str]:
    if metric.kind == "histogram":
        return {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
    return {metric.name}


def test_every_name_exists_with_its_labels(dashboard: Any) -> None:
    metrics = {name: metric for metric in (*HTTP_METRICS, *ENGINE_METRICS) for name in shown(metric)}
    for expression in expressions(dashboard):
        names = re.findall(r"\banydim_\w+", expression)
        assert names, expression
        labels = {"le", "instance"}
        for name in names:
            assert name in metrics, expression
            labels |= set(metrics[name].labels)
        for group in re.findall(r"\bby \(([^)]*)\)", expression):
            assert {label.strip() for label in group.split(",")} <= labels, expression
        assert set(re.findall(r"[{,](\w+)(?:=|!=|=~|!~)\"", expression)) <= labels, expression
        assert expression.count("(") == expression.count(")")


def test_every_metric_is_drawn(dashboard: Any) -> None:
    drawn = " ".join(expressions(dashboard))
    missing = [m.name for m in (*HTTP_METRICS, *ENGINE_METRICS) if m is not BUILD and m.name not in drawn]
    assert missing == []


def test_counters_are_drawn_as_rates_and_panels_do_not_overlap(dashboard: Any) -> None:
    for expression in expressions(dashboard):
        for name in re.findall(r"\banydim_\w+_(?:total|bucket|sum|count)\b", expression):
            assert re.search(rf"rate\({name}\b", expression), expression
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(places) == len(set(places))
    assert all(panel["datasource"]["uid"] == "${source}" for panel in dashboard["panels"])

"""What a request says of its urgency and its patience is checked, kept, and reaches the engine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from anydim.engine.handle import Health
from anydim.engine.metrics import EngineCounts
from anydim.types import Item, Output, Priority, Terms
from tests.api.conftest import with_engine


class Patient:
    """An engine that answers after a while, and keeps what it was asked."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.terms: list[Terms] = []
        self.cancelled = False

    async def run(self, items: Sequence[Item]) -> list[Output]:
        self.terms += [item.terms for item in items]
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return [Output(np.ones(item.dim, np.float32)) for item in items]

    def health(self) -> Health:
        return Health(True, True)

    def counts(self) -> EngineCounts | None:
        return None


def ask(http: TestClient, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    return http.post("/v1/embeddings", json={"input": "a text", **fields}, headers=headers)


def test_priority_time_and_key_reach_the_engine() -> None:
    engine = Patient()
    with with_engine(engine, api_key=["search:secret"]) as http:
        began = time.monotonic()
        answer = ask(http, {"authorization": "Bearer secret"}, priority="low", timeout=500)
    assert answer.status_code == 200
    (terms,) = engine.terms
    assert (terms.priority, terms.key) == (Priority.LOW, "search")
    assert terms.deadline is not None
    assert began + 500 <= terms.deadline <= time.monotonic() + 500


def test_a_request_that_names_nothing_waits_as_long_as_it_takes() -> None:
    engine = Patient()
    with with_engine(engine) as http:
        assert ask(http, priority=None, timeout=None).status_code == 200
    assert engine.terms == [Terms()]


def test_the_shorter_of_header_and_field_holds() -> None:
    engine = Patient()
    with with_engine(engine) as http:
        ask(http, {"X-Request-Timeout": "1000"}, timeout=50)
        ask(http, {"X-Request-Timeout": "50"}, timeout=1000)
    now = time.monotonic()
    assert all(terms.deadline is not None and terms.deadline <= now + 50 for terms in engine.terms)


@pytest.mark.parametrize(("headers", "fields"), [({}, {"timeout": 0.05}), ({"X-Request-Timeout": "0.05"}, {})])
def test_a_request_is_answered_with_504_when_its_time_is_over(headers: dict[str, str], fields: dict[str, Any]) -> None:
    engine = Patient(seconds=60)
    with with_engine(engine) as http:
        answer = ask(http, headers, **fields)
    assert answer.status_code == 504
    assert answer.json()["error"]["code"] == "deadline_exceeded"
    assert engine.cancelled


@pytest.mark.parametrize(
    ("headers", "fields", "param"),
    [
        ({}, {"priority": "urgent"}, "priority"),
        ({}, {"priority": 3}, "priority"),
        ({}, {"timeout": 0}, "timeout"),
        ({}, {"timeout": -1.5}, "timeout"),
        ({}, {"timeout": "soon"}, "timeout"),
        ({"X-Request-Timeout": "soon"}, {}, "X-Request-Timeout"),
        ({"X-Request-Timeout": "0"}, {}, "X-Request-Timeout"),
        ({"X-Request-Timeout": "inf"}, {}, "X-Request-Timeout"),
        ({"X-Request-Timeout": "nan"}, {}, "X-Request-Timeout"),
    ],
)
def test_wrong_terms_are_refused_by_name(headers: dict[str, str], fields: dict[str, Any], param: str) -> None:
    with with_engine(Patient()) as http:
        answer = ask(http, headers, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param

"""Logs: what a line holds, as text and as JSON, and that nothing of what a client sent gets there unasked."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from anydim import testing
from anydim.logs import REQUESTS, JsonLines, Lines, configure_logs
from tests.api.conftest import with_engine

SECRET = "a text of a user"


@pytest.fixture
def kept() -> Iterator[io.StringIO]:
    """Everything that is logged, whatever its level, as JSON."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    logging.getLogger(REQUESTS).setLevel(logging.INFO)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def ask_in_every_way(http: Any) -> None:
    bodies = [{"input": SECRET}, {"input": [SECRET, 5]}, {"input": SECRET, "dimensions": SECRET}, {SECRET: SECRET}]
    for body in bodies:
        http.post("/v1/embeddings", json=body, headers={"api-key": "the-key", "x-request-id": "r-1"})
    http.post("/v1/embeddings", content=f'{{"input": "{SECRET}', headers={"api-key": "the-key"})
    http.post("/v1/embeddings", json={"input": SECRET}, headers={"api-key": SECRET})
    http.get(f"/v1/models/{SECRET}?q={SECRET}", headers={"api-key": "the-key"})


def test_a_line_a_request_and_no_text_of_a_user(kept: io.StringIO) -> None:
    with testing.client(api_key=["search:the-key"], request_log="line") as http:
        ask_in_every_way(http)
    lines = [event for event in events(kept) if event["logger"] == REQUESTS]
    assert len(lines) == 7
    assert SECRET not in kept.getvalue()
    assert "the-key" not in kept.getvalue()
    first = lines[0]
    assert {
        "method": "POST",
        "route": "/v1/embeddings",
        "status": 200,
        "key": "search",
        "request_id": "r-1",
    }.items() <= (first.items())
    assert first["received_bytes"] == len(json.dumps({"input": SECRET}, separators=(",", ":")))
    assert first["time"].endswith("Z")


def test_nothing_is_logged_of_requests_unless_asked(kept: io.StringIO) -> None:
    with testing.client(api_key=["the-key"]) as http:
        ask_in_every_way(http)
    assert [event for event in events(kept) if event["logger"].startswith("anydim")] == []


def test_the_body_is_logged_where_it_is_asked_for(kept: io.StringIO) -> None:
    with testing.client(request_log="body") as http:
        http.post("/v1/embeddings", json={"input": SECRET})
        http.post("/v1/embeddings", json={"input": "x" * 100_000})
    bodies = [event["body"] for event in events(kept) if event["logger"] == REQUESTS]
    assert SECRET in bodies[0]
    assert len(bodies[1]) == 1000


class Broken:
    """An engine whose failure quotes what it was given."""

    async def run(self, items: object) -> list[Any]:
        raise RuntimeError(SECRET)

    def health(self) -> Any:
        raise RuntimeError(SECRET)


def test_a_crash_is_logged_without_its_message(kept: io.StringIO) -> None:
    with with_engine(Broken()) as http:
        answer = http.post("/v1/embeddings", json={"input": "a"}, headers={"x-request-id": "r-2"})
    assert answer.status_code == 500
    assert SECRET not in answer.text + kept.getvalue()
    (event,) = [event for event in events(kept) if event["logger"] == "anydim.api.envelope"]
    assert "r-2" in event["message"]
    assert "RuntimeError" in event["message"]


@pytest.mark.parametrize("formatter", [Lines(), JsonLines()])
def test_an_exception_is_shown_without_its_message(formatter: logging.Formatter) -> None:
    stream = io.StringIO()
    logger = logging.Logger("x")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    try:
        raise ValueError(SECRET)
    except ValueError:
        logger.exception("it failed", extra={"fields": {"request_id": "r"}})
    assert "ValueError" in stream.getvalue()
    assert "test_logs.py" in stream.getvalue()
    assert SECRET not in stream.getvalue()


def test_text_lines_end_with_their_fields(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        configure_logs(as_json=False)
        logging.getLogger(REQUESTS).info("request", extra={"fields": {"status": 200, "route": "/x"}})
        assert capsys.readouterr().err.rstrip().endswith("INFO anydim.requests: request status=200 route='/x'")
    finally:
        root.handlers[:] = before
        root.setLevel(level)

"""A server with more to do than it can: who is refused, who goes first, and who is let go."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.server.process import ServerProcess, serving

LIMIT = 36_000
BLOCKER = 120  # texts: some seconds of work, several times what the engine's counts need to come through


@pytest.fixture(scope="module")
def server(minilm_folder: Path) -> Iterator[ServerProcess]:
    flags = ["--dtype", "float32", "--max-queue-tokens", str(LIMIT), "--max-batch-tokens", "256"]
    with serving(minilm_folder, *flags, "--slice-tokens", "512", "--vector-cache-mib", "0") as server:
        server.post("/v1/embeddings", {"input": "warm"})
        yield server


class Crowd:
    """Requests under way in threads; ``answers`` fills as they are answered: name, status and body."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.before = server.settled_metrics()
        self.answers: list[tuple[str, int, Any]] = []
        self.threads: list[threading.Thread] = []

    def send(self, name: str, body: Any) -> None:
        thread = threading.Thread(target=self._run, args=(name, body))
        thread.start()
        self.threads.append(thread)

    def _run(self, name: str, body: Any) -> None:
        self.answers.append((name, *self.server.post("/v1/embeddings", body)))

    def join(self) -> None:
        for thread in self.threads:
            thread.join(120)


@pytest.fixture
def busy(server: ServerProcess) -> Iterator[Crowd]:
    """A server that has some seconds of low work under way, and all of it answered in the end."""
    crowd = Crowd(server)
    crowd.send("blocker", {"input": texts("blocker", BLOCKER), "priority": "low"})
    server.until(lambda: server.metrics()["anydim_engine_queued_tokens"] > 1000)
    yield crowd
    crowd.join()
    assert ("blocker", 200) in [answer[:2] for answer in crowd.answers]


def texts(name: str, count: int) -> list[str]:
    """Different texts of some 240 tokens."""
    return [f"{name} {time.monotonic_ns()} {place} " + "word " * 220 for place in range(count)]


def connect(server: ServerProcess) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(server.address).netloc, timeout=60)


def test_what_does_not_fit_is_refused_at_once_with_a_time(server: ServerProcess, busy: Crowd) -> None:
    line = connect(server)
    line.request("POST", "/v1/embeddings", json.dumps({"input": texts("more", 100)}))
    answer = line.getresponse()
    body = json.loads(answer.read())
    assert answer.status == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 600
    assert body["error"]["type"] == "rate_limit_error"
    assert "tokens wait" in body["error"]["message"]
    assert not busy.answers  # long before the work that fills the queue is done


def test_a_short_query_does_not_wait_for_bulk_work(server: ServerProcess, busy: Crowd) -> None:
    assert server.post("/v1/embeddings", {"input": f"a short query {time.monotonic_ns()}"})[0] == 200
    assert not busy.answers


def test_work_past_its_time_is_answered_and_never_run(server: ServerProcess, busy: Crowd) -> None:
    status, body = server.post("/v1/embeddings", {"input": texts("late", 4), "priority": "low", "timeout": 0.2})
    assert (status, body["error"]["code"]) == (504, "deadline_exceeded")
    busy.join()
    after = server.settled_metrics()
    late, ran = 'anydim_engine_errors_total{cause="deadline"}', "anydim_engine_batch_texts_sum"
    assert after[late] - busy.before.get(late, 0) == 1
    assert after["anydim_engine_queued_tokens"] == 0
    assert after[ran] - busy.before[ran] == BLOCKER


def test_a_client_that_hangs_up_frees_its_place(server: ServerProcess, busy: Crowd) -> None:
    place = urlsplit(server.address)
    body = json.dumps({"input": texts("gone", 5), "priority": "low"}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    gone = 'anydim_engine_errors_total{cause="cancelled"}'
    admitted = "anydim_engine_texts_total"
    with socket.create_connection((place.hostname, place.port)) as line:
        line.sendall(head.encode() + body)
        server.until(lambda: server.metrics()[admitted] == busy.before[admitted] + BLOCKER + 5)
    server.until(lambda: server.metrics().get(gone, 0) == busy.before.get(gone, 0) + 1)
    assert not busy.answers


def test_equal_requests_under_way_share_a_forward(server: ServerProcess, busy: Crowd) -> None:
    # As large as a slice, so that all of them wait behind the blocker, which came first.
    same = {"input": texts("same", 3), "priority": "low"}
    for number in range(8):
        busy.send(f"same {number}", same | {"dimensions": 32 * (number + 1)})
    busy.join()
    shared = "anydim_engine_deduplicated_total"
    assert server.settled_metrics()[shared] - busy.before[shared] == 7 * 3
    vectors = {
        len(answer["data"][0]["embedding"]): answer["data"][0]["embedding"]
        for name, status, answer in busy.answers
        if name.startswith("same") and status == 200
    }
    assert sorted(vectors) == [32 * (number + 1) for number in range(8)]
    longest = vectors[256][:32]
    scale = sum(value * value for value in longest) ** 0.5
    assert all(abs(value / scale - other) < 1e-6 for value, other in zip(longest, vectors[32], strict=True))

"""Several front ends: they behave as one, add up, outlive each other's deaths, and end together."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import signal
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from tests.server.process import ServerProcess, serving

FRONTS = 3


def fronts_of(server: ServerProcess) -> list[psutil.Process]:
    return children(server, "anydim.cli.front_process")


def children(server: ServerProcess, module: str) -> list[psutil.Process]:
    server.line_with("Server running on")
    return [child for child in psutil.Process(server.process.pid).children() if module in child.cmdline()]


def kill_fronts(server: ServerProcess) -> bool:
    """Kill those that run; always false."""
    for child in psutil.Process(server.process.pid).children():
        with contextlib.suppress(psutil.Error):  # one that has just ended must not hide the others
            if "anydim.cli.front_process" in child.cmdline():
                child.kill()
    return False


def are_gone(processes: list[psutil.Process]) -> bool:
    return all(not each.is_running() or each.status() == psutil.STATUS_ZOMBIE for each in processes)


@pytest.fixture(scope="module")
def server(minilm_folder: Path) -> Iterator[ServerProcess]:
    flags = ["--http-workers", str(FRONTS), "--api-key", "alpha:one", "--api-key", "beta:two"]
    with serving(minilm_folder, *flags, "--max-queue-tokens", "4000") as server:
        yield server


def ask(server: ServerProcess, body: Any, key: str = "one", path: str = "/v1/embeddings") -> tuple[int, Any]:
    """Each call opens a connection of its own, so that all front ends are met."""
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    data = None if body is None else json.dumps(body).encode()
    return server.send(urllib.request.Request(server.address + path, data, headers))


def test_all_of_them_answer_alike_and_metrics_add_up(server: ServerProcess) -> None:
    assert len(fronts_of(server)) == FRONTS
    vectors = [ask(server, {"input": "a text"})[1]["data"][0]["embedding"] for _ in range(20)]
    assert all(vector == vectors[0] for vector in vectors)
    assert {ask(server, {"input": "a text"}, key="wrong")[0] for _ in range(10)} == {401}
    sums = {
        sum(
            value
            for name, value in server.metrics("one").items()
            if name.startswith("anydim_http_requests_total") and 'status="200"' in name and "embeddings" in name
        )
        for _ in range(6)
    }
    assert sums == {20.0}


def test_the_limit_of_the_queue_is_one_for_all(server: ServerProcess) -> None:
    statuses: list[int] = []

    def crowd(number: int) -> None:
        texts = [f"{number} {place} " + "word " * 200 for place in range(15)]
        statuses.append(ask(server, {"input": texts})[0])

    threads = [threading.Thread(target=crowd, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert set(statuses) == {200, 429}


def metrics_at(door: http.client.HTTPConnection) -> dict[str, float]:
    """GET /metrics from one front end."""
    door.request("GET", "/metrics", headers={"Authorization": "Bearer one"})
    lines = door.getresponse().read().decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def lines_to_two(server: ServerProcess) -> list[http.client.HTTPConnection]:
    """Open connections to two front ends."""
    found: dict[int, http.client.HTTPConnection] = {}

    def are_two() -> bool:
        line = http.client.HTTPConnection(urlsplit(server.address).netloc, timeout=60)
        line.request("GET", "/health")
        line.getresponse().read()
        here = line.sock.getsockname()
        for front in fronts_of(server):
            if any(each.raddr == here for each in front.net_connections("tcp")):
                found.setdefault(front.pid, line)
        return len(found) == 2

    server.until(are_two)
    return list(found.values())


@contextlib.contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    """A process that stands still meanwhile."""
    process.suspend()
    try:
        yield
    finally:
        process.resume()


def test_equal_texts_that_come_through_different_front_ends_share_one_forward(server: ServerProcess) -> None:
    (engine,) = children(server, "anydim.engine.worker")
    doors = lines_to_two(server)
    texts, ran = "anydim_engine_texts_total", "anydim_engine_batch_texts_sum"
    shared, under_way = "anydim_engine_deduplicated_total", "anydim_http_requests_in_flight"
    numbers = itertools.count()

    def is_shared() -> bool:
        """Two ask for a text that nobody has asked for before, and the engine stands still until both have."""
        before = metrics_at(doors[0])
        body = json.dumps({"input": f"one text through two doors {next(numbers)}"})
        with stopped(engine):
            for door in doors:
                door.request("POST", "/v1/embeddings", body, {"Authorization": "Bearer one"})
            server.until(lambda: server.metrics("one")[under_way] >= before[under_way] + 2)
        first, second = (json.loads(door.getresponse().read())["data"][0]["embedding"] for door in doors)
        assert first == second
        server.until(lambda: metrics_at(doors[0])[texts] >= before[texts] + 2)  # counts come now and then
        after = metrics_at(doors[0])
        return [after[name] - before[name] for name in (ran, shared)] == [1, 1]

    server.until(is_shared)


def test_a_killed_front_end_is_replaced_and_the_others_go_on(server: ServerProcess) -> None:
    before = fronts_of(server)
    before[0].send_signal(signal.SIGKILL)
    statuses = [ask(server, {"input": "a text"})[0] for _ in range(12)]
    assert set(statuses) == {200}  # connections that meet the dead one wait for its successor
    server.until(lambda: len(fronts_of(server)) == FRONTS and are_gone(before[:1]))
    assert "front end" in server.output


def test_a_killed_engine_is_told_by_all_and_comes_back(server: ServerProcess) -> None:
    (engine,) = children(server, "anydim.engine.worker")
    engine.send_signal(signal.SIGKILL)
    server.until(lambda: all(server.get("/ready")[0] == 200 for _ in range(8)) and not engine.is_running())
    assert ask(server, {"input": "a text"})[0] == 200


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_all_processes_drain_and_end_with_the_server(minilm_folder: Path, number: signal.Signals, code: int) -> None:
    with serving(minilm_folder, "--http-workers", "2") as server:
        family = psutil.Process(server.process.pid).children() if server.address else []
        assert len(family) == 3
        statuses: list[int] = []
        texts = [f"{place} " + "word " * 200 for place in range(300)]  # seconds of work
        crowd = threading.Thread(target=lambda: statuses.append(server.post("/v1/embeddings", {"input": texts})[0]))
        crowd.start()
        (engine,) = children(server, "anydim.engine.worker")
        server.until(lambda: engine.cpu_percent(0.1) > 20)
        assert server.stop(number) == code
        crowd.join(30)
        assert statuses == [200]
        assert are_gone(family)


def test_a_killed_server_takes_all_its_processes_along(minilm_folder: Path, tmp_path: Path) -> None:
    with serving(minilm_folder, "--http-workers", "2", environment={"TMPDIR": str(tmp_path)}) as server:
        port = server.address.rsplit(":", 1)[1]
        family = psutil.Process(server.process.pid).children()
        server.stop(signal.SIGKILL)
        server.until(lambda: are_gone(family))
        assert list(tmp_path.glob("anydim-*")) == []
    with serving(minilm_folder, "--http-workers", "2", "--port", port) as again:
        assert again.get("/ready")[0] == 200


def test_a_taken_port_is_told_whoever_holds_it(server: ServerProcess, minilm_folder: Path) -> None:
    port = server.address.rsplit(":", 1)[1]
    with serving(minilm_folder, "--http-workers", "2", "--port", port) as late:
        assert late.process.wait(60) == 2
        assert late.stop() == 2
    assert f"port {port}" in late.output


def test_front_ends_that_cannot_live_end_the_server_with_a_reason(minilm_folder: Path) -> None:
    with serving(minilm_folder, "--http-workers", "2") as server:
        assert len(fronts_of(server)) == 2
        server.until(lambda: kill_fronts(server) or server.process.poll() is not None)
        assert server.stop() == 1
    assert "front end" in server.output
    assert "ended 5 times" in server.output

"""Connections over a real socket: clients that send too much, too slowly or nothing, and those that do not read."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from anydim import testing

from .conftest import running

HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\n"
BODY = b'{"input": "aab", "normalize": false}'
PATIENCE = 30.0


class Server:
    """A running server and the causes of its refusals."""

    def __init__(self, url: str, causes: list[str]) -> None:
        self.port = urlsplit(url).port
        self.causes = causes

    @contextlib.contextmanager
    def line(self) -> Iterator[socket.socket]:
        """A connection."""
        with contextlib.closing(socket.create_connection(("127.0.0.1", self.port), PATIENCE)) as line:
            yield line

    def ask(self, request: bytes) -> bytes:
        """Send these bytes and read until the server hangs up."""
        with self.line() as line:
            with contextlib.suppress(OSError):  # it may hang up before it has read all
                line.sendall(request)
            return read_all(line)


def read_all(line: socket.socket) -> bytes:
    """Everything until the other side hangs up."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while part := line.recv(65536):
            found += part
    return found


def good(extra: bytes = b"Connection: close\r\n") -> bytes:
    return HEAD + extra + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def error_of(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def quick() -> Iterator[Server]:
    """A server with little patience."""
    causes: list[str] = []
    short = {"header_timeout": 0.3, "body_timeout": 0.3, "send_timeout": 0.3, "keep_alive_timeout": 0.3}
    with testing.app() as app, running(app, causes.append, max_header_bytes=4096, **short) as url:
        yield Server(url, causes)


@pytest.fixture(scope="module")
def patient() -> Iterator[Server]:
    causes: list[str] = []
    with testing.app() as app, running(app, causes.append, max_header_bytes=4096, connections=5) as url:
        yield Server(url, causes)


@pytest.mark.parametrize(
    "request_of",
    [
        lambda size: HEAD + b"X-Long: " + b"a" * size + b"\r\n\r\n",
        lambda size: HEAD + b"X-Long: " + b"a" * size,  # its end never comes
        lambda size: HEAD + b"a" * size,
        lambda size: HEAD + b"a: b\r\n" * (size // 5) + b"\r\n",
        lambda size: b"GET /" + b"a" * size + b" HTTP/1.1\r\n\r\n",
        lambda size: b"GET /" + b"a" * size,
        lambda size: HEAD + b"Cookie: a=b; " * (size // 12) + b"\r\n\r\n",
    ],
    ids=["value", "value without end", "name without end", "many", "target", "target without end", "repeated"],
)
@pytest.mark.parametrize("size", [5000, 1_000_000])
def test_a_head_that_is_too_large_is_refused(patient: Server, request_of: Callable[[int], bytes], size: int) -> None:
    answer = patient.ask(request_of(size))
    if answer or size < 100_000:  # with much more on its way, a hang-up may overtake the answer
        assert status_of(answer) == 431
        assert "4096 bytes" in error_of(answer)["message"]
        assert b"connection: close" in answer.lower()
    assert "head_too_large" in patient.causes
    assert status_of(patient.ask(good())) == 200


def test_a_head_within_the_limit_is_served_with_its_long_body(patient: Server) -> None:
    body = b'{"input": "' + b"a" * 50_000 + b'", "truncate": "end"}'
    padded = HEAD + b"X: " + b"a" * 3000 + b"\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert status_of(patient.ask(padded + body)) == 200


def test_many_requests_on_one_connection_are_counted_one_by_one(patient: Server) -> None:
    many = good(b"X: " + b"a" * 1500 + b"\r\n") * 20
    answer = patient.ask(many + good())
    assert answer.count(b"HTTP/1.1 200") == 21


@pytest.mark.parametrize("junk", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"\0" * 40])
def test_what_is_no_http_is_refused_in_json(patient: Server, junk: bytes) -> None:
    answer = patient.ask(junk)
    assert status_of(answer) == 400
    assert error_of(answer)["type"] == "invalid_request_error"
    assert "malformed" in patient.causes


def test_two_lengths_cannot_hide_a_second_request(patient: Server) -> None:
    smuggled = HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\n\r\n"
    answer = patient.ask(smuggled)
    assert status_of(answer) == 400
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "junk", [b"\0\0\0", b"GET / HTTP/1.1\r\nX: " + b"a" * 5000, b"PUT / HTTP/1.1\r\nContent-Length: x\r\n\r\n"]
)
def test_a_broken_request_behind_good_ones_takes_no_answer_away(quick: Server, junk: bytes) -> None:
    answer = quick.ask(good(b"") * 3 + junk)
    assert [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]][:3] == [200] * 3


def test_more_connections_than_allowed_are_told_and_others_go_on(patient: Server) -> None:
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(patient.line()) for _ in range(5)]
        for line in lines:
            line.sendall(HEAD)
        turned_away = patient.ask(b"")
        assert status_of(turned_away) == 503
        assert "connections" in error_of(turned_away)["message"]
        lines[0].sendall(b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
        assert status_of(read_all(lines[0])) == 200
    until(lambda: status_of(patient.ask(good())) == 200)
    assert "connections" in patient.causes


def test_a_client_that_says_nothing_is_let_go(quick: Server) -> None:
    with quick.line() as line:
        assert read_all(line) == b""
    assert "head_timeout" in quick.causes


def test_a_head_that_trickles_in_is_ended(quick: Server) -> None:
    with quick.line() as line:
        ended = threading.Event()

        def trickle() -> None:
            with contextlib.suppress(OSError):
                line.sendall(HEAD)
                while not ended.wait(0.05):
                    line.sendall(b"a: b\r\n")

        thread = threading.Thread(target=trickle)
        thread.start()
        answer = read_all(line)
        ended.set()
        thread.join()
    assert status_of(answer) == 408
    assert "head" in error_of(answer)["message"]


@pytest.mark.parametrize("extra", [b"Content-Length: 100\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"])
def test_a_body_that_does_not_come_is_ended(quick: Server, extra: bytes) -> None:
    answer = quick.ask(HEAD + extra)
    assert status_of(answer) == 408
    assert "body" in error_of(answer)["message"]
    assert "body_timeout" in quick.causes


def test_a_request_that_was_answered_unread_gets_one_answer(quick: Server) -> None:
    answer = quick.ask(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert status_of(answer) == 404
    assert answer.count(b"HTTP/1.1") == 1


def test_a_slow_body_within_the_limit_is_answered(patient: Server) -> None:
    with patient.line() as line:
        head, body = good()[: -len(BODY)], BODY
        for part in (head[:9], head[9:], body[:1], body[1:20], body[20:]):
            line.sendall(part)
            time.sleep(0.01)
        assert status_of(read_all(line)) == 200


def test_a_connection_that_rests_is_closed(quick: Server) -> None:
    with quick.line() as line:
        line.sendall(good(b""))
        assert read_all(line).count(b"HTTP/1.1 200") == 1


def test_a_client_that_does_not_read_is_let_go(quick: Server) -> None:
    texts = json.dumps({"input": ["a"] * 20_000, "dimensions": 64}).encode()  # an answer of 20 MB
    before = len(quick.causes)
    with quick.line() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(texts) + texts)
        until(lambda: "send_timeout" in quick.causes[before:])
        assert len(read_all(line)) < 20_000_000
    assert status_of(quick.ask(good())) == 200


def test_a_client_that_reads_slowly_gets_everything(patient: Server) -> None:
    texts = json.dumps({"input": ["a"] * 5000}).encode()
    with patient.line() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        line.sendall(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(texts) + texts)
        time.sleep(0.3)
        answer = read_all(line)
    assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["data"]) == 5000

"""Any bytes on a real socket: the server answers in HTTP or hangs up, and goes on serving others.

Requests are drawn whole, then cut, repeated, spliced and spoilt; hypothesis shrinks what breaks the server.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anydim import testing

from .conftest import running

GOOD = b'POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 14\r\n\r\n{"input": "a"}'
STATUS = re.compile(rb"HTTP/1\.1 ([1-5]\d\d) ")

methods = st.sampled_from([b"GET", b"POST", b"HEAD", b"OPTIONS", b"PUT", b"BREW", b"get", b""])
targets = st.sampled_from(
    [
        b"/",
        b"/v1/embeddings",
        b"/health",
        b"*",
        b"//",
        b"/%00",
        b"/%ff",
        b"/\xff",
        b"http://x/v1/models",
        b"/v1/models/a?b#c",
    ]
)
versions = st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.", b""])
names = st.sampled_from(
    [
        b"Content-Length",
        b"Transfer-Encoding",
        b"Expect",
        b"Connection",
        b"Upgrade",
        b"Accept",
        b"Content-Encoding",
        b"X-Request-Id",
    ]
)
values = st.one_of(
    st.sampled_from(
        [b"0", b"14", b"-1", b"1e3", b"99999999999999999999", b"chunked", b"100-continue", b"close", b"keep-alive"]
    ),
    st.sampled_from([b"websocket", b"gzip", b"application/octet-stream", b"h2c", b"a, b", b"\x00", b"\xff", b""]),
    st.binary(max_size=20),
)
headers = st.lists(st.tuples(names, values), max_size=5)
bodies = st.one_of(
    st.sampled_from(
        [b"", b'{"input": "a"}', b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffff\r\n", b"0\r\n\r\n", b"-1\r\n"]
    ),
    st.binary(max_size=60),
)
spoils = st.lists(st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=3)), max_size=3)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request that is nearly HTTP."""
    line = b" ".join([draw(methods), draw(targets), draw(versions)])
    head = [line, b"Host: x", *(name + b": " + value for name, value in draw(headers))]
    return b"\r\n".join(head) + b"\r\n\r\n" + draw(bodies)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """What a client sends over one connection, in the pieces in which it arrives."""
    whole = b"".join(
        draw(st.lists(st.one_of(requests(), st.just(GOOD), st.binary(max_size=80)), min_size=1, max_size=3))
    )
    for place, junk in draw(spoils):
        whole = whole[:place] + junk + whole[place + 1 :]
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=3)))
    return [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    short: dict[str, Any] = {"header_timeout": 5, "body_timeout": 5, "max_header_bytes": 4096, "max_body_bytes": 10_000}
    with testing.app() as app, running(app, lambda cause: None, **short) as url:
        yield urlsplit(url).port or 0


def exchange(port: int, pieces: list[bytes]) -> bytes:
    """Send the pieces, say that no more will come, and read until the server hangs up."""
    found = b""
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), 20)) as line:
        with contextlib.suppress(OSError):  # it may hang up before it has read all
            for piece in pieces:
                line.sendall(piece)
            line.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while part := line.recv(65536):
                found += part
    return found


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pieces=streams())
def test_any_bytes_are_answered_in_http_or_not_at_all(port: int, pieces: list[bytes]) -> None:
    found = exchange(port, pieces)
    assert not found or STATUS.match(found), found[:100]
    assert all(int(status) < 500 for status in STATUS.findall(found)), found


def test_it_still_serves(port: int) -> None:
    with contextlib.closing(socket.create_connection(("127.0.0.1", port), 20)) as line:
        line.sendall(GOOD)
        assert STATUS.match(line.recv(65536))[1] == b"200"  # type: ignore[index]

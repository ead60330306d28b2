"""Bodies as they come off a real socket: limits, encodings, and clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import httpx2
import pytest
from starlette.testclient import TestClient

from anydim import testing
from anydim.api.app import create_app
from anydim.api.models import Models, ServedModel
from anydim.config import ServerSettings
from anydim.engine.handle import Health
from anydim.types import Item, Output

from .conftest import running

GOOD = b'{"input": "a"}'


def test_the_limit_is_exact() -> None:
    with testing.client(max_body_bytes=100) as http:
        assert http.post("/v1/embeddings", content=GOOD.ljust(100)).status_code == 200
        refused = http.post("/v1/embeddings", content=GOOD.ljust(101))
        assert refused.status_code == 413
        assert refused.json()["error"]["code"] == "body_too_large"
        assert "100 bytes" in refused.json()["error"]["message"]


def test_a_body_without_a_length_is_counted_while_it_is_read() -> None:
    def chunks() -> Iterator[bytes]:
        yield from [b'{"input": "'] + [b"a" * 64] * 40 + [b'"}']

    with testing.client(max_body_bytes=1000) as http:
        assert http.post("/v1/embeddings", content=chunks()).status_code == 413
        assert http.post("/v1/embeddings", content=GOOD).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip"])
def test_compressed_bodies_are_refused_clearly(http: TestClient, encoding: str) -> None:
    response = http.post("/v1/embeddings", content=gzip.compress(GOOD), headers={"Content-Encoding": encoding})
    assert response.status_code == 415
    assert "uncompressed" in response.json()["error"]["message"]
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_identity_is_no_compression(http: TestClient) -> None:
    assert http.post("/v1/embeddings", content=GOOD, headers={"Content-Encoding": "identity"}).status_code == 200


def test_a_body_of_forty_megabytes_is_refused_by_a_real_server(address: str) -> None:
    with httpx2.Client(base_url=address, timeout=60) as client:
        response = client.post("/v1/embeddings", content=b"x" * (40 << 20))
        assert response.status_code == 413
        assert client.post("/v1/embeddings", content=GOOD).status_code == 200


class Slow:
    """An engine that answers nothing until it is cancelled."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.cancelled = threading.Event()

    async def run(self, items: Sequence[Item]) -> list[Output]:
        self.started.set()
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return []

    def health(self) -> Health:
        return Health(True, True)


def test_bodies_under_way_are_bounded_together() -> None:
    engine = Slow()
    app = create_app(Models([ServedModel(intake=testing.intake())]), engine, ServerSettings(max_bodies_bytes=2000))
    large = json.dumps({"input": "a" * 1500}).encode()
    head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: {len(large)}\r\n\r\n".encode()
    with running(app) as url, contextlib.closing(socket.create_connection(("127.0.0.1", urlsplit(url).port))) as line:
        line.sendall(head + large)
        assert engine.started.wait(20)
        refused = httpx2.post(f"{url}/v1/embeddings", content=large)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        line.close()
        assert engine.cancelled.wait(20)
        with contextlib.closing(socket.create_connection(("127.0.0.1", urlsplit(url).port))) as again:
            engine.started.clear()
            again.sendall(head + large)
            assert engine.started.wait(20)  # the room is free again


def test_a_client_that_leaves_frees_its_place() -> None:
    engine = Slow()
    app = create_app(Models([ServedModel(intake=testing.intake())]), engine, ServerSettings())
    with running(app) as url, contextlib.closing(socket.create_connection(("127.0.0.1", urlsplit(url).port))) as line:
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: {len(GOOD)}\r\n\r\n"
        line.sendall(head.encode() + GOOD)
        assert engine.started.wait(20)
        assert not engine.cancelled.is_set()
        line.close()
        assert engine.cancelled.wait(20)
        assert httpx2.get(f"{url}/health").status_code == 200

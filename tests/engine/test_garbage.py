"""What is answered is gone: nothing is left to Python's cycle collector, which would hold up whoever is served then."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.types import Message

from anydim import testing
from anydim.engine import wire
from anydim.engine.client import EngineClient
from anydim.engine.handle import EngineHandle, LocalEngine
from anydim.engine.worker import _converse
from anydim.errors import AnydimError
from anydim.types import Item, Terms

TIMES = 20
NUMBERS = itertools.count()
HELLO = wire.Hello("cpu", "float32", 100)

Way = Callable[[EngineHandle], Awaitable[None]]


def items(deadline: float | None = None) -> list[Item]:
    draws = np.random.default_rng()
    return [Item(draws.integers(1, 200, 20, dtype=np.int32), 32, terms=Terms(deadline=deadline)) for _ in range(8)]


async def answered(engine: EngineHandle) -> None:
    assert len(await engine.run(items())) == 8


async def late(engine: EngineHandle) -> None:
    with pytest.raises(AnydimError, match="time"):
        await engine.run(items(deadline=time.monotonic() - 1))


async def cancelled(engine: EngineHandle) -> None:
    task = asyncio.ensure_future(engine.run(items()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@contextlib.contextmanager
def no_collector() -> Iterator[list[str]]:
    """Without the collector; afterwards the names of the types that it would have had to collect."""
    found: list[str] = []
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += [type(one).__name__ for one in gc.garbage if is_ours(one)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def is_ours(one: object) -> bool:
    return type(one).__module__.startswith("anydim") or isinstance(one, Future | asyncio.Future | np.ndarray)


@pytest.mark.parametrize("way", [answered, late, cancelled])
def test_an_engine_in_this_process_leaves_nothing(way: Way) -> None:
    async def ask(engine: LocalEngine) -> None:
        for _ in range(TIMES):
            await way(engine)
        await answered(engine)

    with testing.engine() as engine:
        asyncio.run(ask(engine))
        with no_collector() as left:
            asyncio.run(ask(engine))
    assert left == []


@pytest.mark.parametrize("way", [answered, late, cancelled])
async def test_an_engine_behind_a_socket_leaves_nothing_on_either_side(way: Way, tmp_path: Path) -> None:
    with testing.engine() as local:
        async with await asyncio.start_unix_server(partial(_converse, local._engine, HELLO, None), tmp_path / "s"):
            client = EngineClient(tmp_path / "s", 30)
            client.connect()
            while not client.health().ready:
                await asyncio.sleep(0.01)
            with no_collector() as left:
                for _ in range(TIMES):
                    await way(client)
                await answered(client)
            await client.close()
    assert left == []


async def post(app: Starlette, seconds: str) -> int:
    """One request to the application, whose client stays; the status."""
    body = json.dumps({"input": [f"{next(NUMBERS)} is a number"] * 4}).encode()
    headers = [(b"content-type", b"application/json"), (b"x-request-timeout", seconds.encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/embeddings", "query_string": b"", "headers": headers}
    told: list[Message] = [{"type": "http.request", "body": body}]
    statuses: list[int] = []

    async def receive() -> Message:
        if not told:
            await asyncio.Event().wait()
        return told.pop()

    async def send(message: Message) -> None:
        statuses.append(message.get("status", 0))

    await app(scope, receive, send)
    return statuses[0]


@pytest.mark.parametrize(("seconds", "status"), [("30", 200), ("0.000001", 504)])
def test_a_request_leaves_nothing(seconds: str, status: int) -> None:
    async def ask(app: Starlette) -> None:
        assert {await post(app, seconds) for _ in range(TIMES)} == {status}

    with testing.app() as app:
        asyncio.run(ask(app))
        with no_collector() as left:
            asyncio.run(ask(app))
    assert left == []

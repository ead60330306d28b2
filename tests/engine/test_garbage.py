"""What is answered is gone: nothing is left to Python's cycle collector, which would hold up whoever is served then."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.types import Message

from anydim import testing
from anydim.engine import wire
from anydim.engine.client import EngineClient
from anydim.engine.engine import Engine
from anydim.engine.handle import EngineHandle, LocalEngine
from anydim.engine.worker import _converse
from anydim.errors import AnydimError, Overloaded
from anydim.types import Item, Terms
from tests.engine.test_replicas import Line, replicas, text

TIMES = 20
NUMBERS = itertools.count()
HELLO = wire.Hello("cpu", "float32", 100)

Way = Callable[[EngineHandle, Engine], Awaitable[None]]


def items(deadline: float | None = None) -> list[Item]:
    draws = np.random.default_rng()
    return [Item(draws.integers(1, 200, 20, dtype=np.int32), 32, terms=Terms(deadline=deadline)) for _ in range(8)]


async def answered(engine: EngineHandle, core: Engine) -> None:
    assert len(await engine.run(items())) == 8


async def late(engine: EngineHandle, core: Engine) -> None:
    with pytest.raises(AnydimError, match="time"):
        await engine.run(items(deadline=time.monotonic() - 1))


async def late_while_it_waits(engine: EngineHandle, core: Engine) -> None:
    with core._loop._turn:  # the loop takes nothing meanwhile
        task = asyncio.ensure_future(engine.run(items(deadline=time.monotonic() + 0.02)))
        while not core.status().counts.queued_texts:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.03)
    try:
        with pytest.raises(AnydimError, match="time"):
            await task
    finally:
        del task  # or the error would hold this frame, and the frame the task that holds the error


async def cancelled(engine: EngineHandle, core: Engine) -> None:
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


@pytest.mark.parametrize("way", [answered, late, late_while_it_waits, cancelled])
def test_an_engine_in_this_process_leaves_nothing(way: Way) -> None:
    async def ask(engine: LocalEngine) -> None:
        for _ in range(TIMES):
            await way(engine, engine._engine)
        await answered(engine, engine._engine)

    with testing.engine() as engine:
        asyncio.run(ask(engine))
        with no_collector() as left:
            asyncio.run(ask(engine))
    assert left == []


@pytest.mark.parametrize("way", [answered, late, late_while_it_waits, cancelled])
async def test_an_engine_behind_a_socket_leaves_nothing_on_either_side(way: Way, tmp_path: Path) -> None:
    with testing.engine() as local:
        async with await asyncio.start_unix_server(partial(_converse, local._engine, HELLO, None), tmp_path / "s"):
            client = EngineClient(tmp_path / "s", 30)
            client.connect()
            while not client.health().ready:
                await asyncio.sleep(0.01)
            with no_collector() as left:
                for _ in range(TIMES):
                    await way(client, local._engine)
                await answered(client, local._engine)
            await client.close()
    assert left == []


def test_a_thread_that_waited_too_long_leaves_nothing() -> None:
    with testing.engine() as local, no_collector() as left:
        for _ in range(TIMES):
            with ThreadPoolExecutor(1) as pool, local._engine._loop._turn:
                asked = pool.submit(local._engine.run, items(deadline=time.monotonic() + 0.02))
                while not local._engine.status().counts.queued_texts:
                    time.sleep(0.001)
                time.sleep(0.03)
                local._engine._loop._turn.release()
                try:
                    assert isinstance(asked.exception(30), AnydimError)
                finally:
                    local._engine._loop._turn.acquire()
            del asked
        assert local._engine.run(items())
    assert left == []


@pytest.mark.parametrize("texts", [1, 40])
async def test_what_all_of_several_engines_refuse_leaves_nothing(texts: int) -> None:
    engines = replicas(Line(limit=0), Line(limit=0))
    with no_collector() as left:
        for _ in range(TIMES):
            with pytest.raises(Overloaded):
                await engines.run([text(20) for _ in range(texts)])
        await asyncio.sleep(0)
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
    broken: list[dict[str, Any]] = []

    async def ask(app: Starlette) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: broken.append(context))
        assert {await post(app, seconds) for _ in range(TIMES)} == {status}

    with testing.app() as app:
        asyncio.run(ask(app))
        with no_collector() as left:
            asyncio.run(ask(app))
    assert left == []
    assert broken == []

"""The front end's line to the engine survives whatever its users and the engine do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import numpy as np

from anydim.engine import wire
from anydim.engine.client import EngineClient
from anydim.errors import Unavailable
from anydim.types import Item, Output

ITEM = Item(np.array([1, 2], np.int32), 32)
OUTPUT = Output(np.arange(32, dtype=np.float32))


@asynccontextmanager
async def line(tmp_path: Path, answer: object) -> AsyncIterator[EngineClient]:
    """A client whose engine handles each connection with ``answer(reader, writer)``."""
    path = tmp_path / "engine"
    server = await asyncio.start_unix_server(answer, path)
    client = EngineClient(path, 60)
    client.connect()
    try:
        yield client
    finally:
        await client.close()
        server.close()


async def run(client: EngineClient) -> list[Output]:
    while True:
        try:
            return await client.run([ITEM])
        except Unavailable:
            await asyncio.sleep(0.01)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            header, _ = await wire.read_frame(reader)
            if isinstance(header, wire.Submit):
                wire.write_frame(writer, *wire.pack_outputs(header.id, [OUTPUT]))


async def test_clients_that_leave_at_any_moment_do_not_break_the_line(tmp_path: Path) -> None:
    async with line(tmp_path, echo) as client:
        await run(client)
        for turn in range(300):
            task = asyncio.create_task(client.run([ITEM]))
            for _ in range(turn % 7):
                await asyncio.sleep(0)
            task.cancel()
        (output,) = await asyncio.wait_for(run(client), 30)
        assert np.array_equal(output.values, OUTPUT.values)


async def test_an_engine_that_speaks_nonsense_is_asked_anew(tmp_path: Path) -> None:
    turns = iter([b"\xff" * 64, b"\x03\0\0\0" + b"\0" * 8 + b"abc", b""])

    async def moody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        noise = next(turns, None)
        if noise is None:
            return await echo(reader, writer)
        writer.write(noise)
        await writer.drain()
        writer.close()

    async with line(tmp_path, moody) as client:
        (output,) = await asyncio.wait_for(run(client), 30)
        assert np.array_equal(output.values, OUTPUT.values)

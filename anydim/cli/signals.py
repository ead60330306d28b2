"""Signals: SIGTERM and Ctrl-C, the first for an orderly stop and the second for a quick one. It knows no server."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import click

from anydim.offline.ahead import is_left_behind


@contextmanager
def stopping_on_sigterm() -> Iterator[None]:
    """Meanwhile SIGTERM does what Ctrl-C does, with its number in the KeyboardInterrupt."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def leaving_readers_behind() -> Iterator[None]:
    """Leave at once where a thread still waits for standard input: the interpreter's end would wait for its lock."""
    try:
        yield
    except click.exceptions.Exit as leaving:
        if is_left_behind():
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError, AttributeError):  # closed, or never there
                    stream.flush()
            os._exit(leaving.exit_code)
        raise


class Signals:
    """The signals of this process, from its creation on."""

    def __init__(self, on_second: Callable[[], None]) -> None:
        """Listen on the running loop; ``on_second`` is called when a second signal comes."""
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[int] = loop.create_future()
        self._second: asyncio.Future[None] = loop.create_future()
        self._on_second = on_second
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._arrived, number)

    @property
    def exit_code(self) -> int:
        """0 after SIGTERM, 130 after Ctrl-C, 1 where no signal came."""
        if not self.first.done():
            return 1
        return 0 if self.first.result() == signal.SIGTERM else 128 + self.first.result()

    async def unless_second(self, work: Coroutine[object, object, None]) -> None:
        """Wait for some work, but no longer once the second signal has come."""
        task = asyncio.create_task(work)
        await first_of(task, self._second)
        task.cancel()

    def _arrived(self, number: int) -> None:
        if not self.first.done():
            self.first.set_result(number)
        elif not self._second.done():
            self._second.set_result(None)
            self._on_second()


async def first_of(*futures: asyncio.Future[Any]) -> None:
    """Wait until one of them is done."""
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)

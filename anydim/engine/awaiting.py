"""Awaiting: what an engine's thread answers, waited for in an event loop.

asyncio.wrap_future does the same, but what it leaves behind refers to itself: each answer with all its vectors would
stay until Python's cycle collector comes, which holds up whoever is served then. Here all goes with its last reference.

It knows futures alone.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


async def outcome(future: Future[T]) -> T:
    """What a future of another thread gets; it is cancelled with the task that waits for it.

    Raises:
        BaseException: whatever the future failed with.
    """
    loop = asyncio.get_running_loop()
    answered = loop.create_future()
    future.add_done_callback(partial(_tell, loop, answered))
    try:
        await answered
        return future.result()
    except asyncio.CancelledError:
        future.cancel()
        raise
    finally:
        del future  # an error would hold this frame, and the frame the future that holds the error


def _tell(loop: asyncio.AbstractEventLoop, answered: asyncio.Future[None], future: Future[Any]) -> None:
    """In whichever thread answers."""
    with suppress(RuntimeError):  # the loop is closed, and nobody waits
        loop.call_soon_threadsafe(_wake, answered)


def _wake(answered: asyncio.Future[None]) -> None:
    if not answered.done():
        answered.set_result(None)

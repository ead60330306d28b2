"""Waiting without holding others up: engine calls that end with their client, and long work in a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, ParamSpec, TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from anydim.engine.handle import EngineHandle
from anydim.errors import DeadlineExceeded
from anydim.types import Item, Output

P = ParamSpec("P")
R = TypeVar("R")

_TIMER_SECONDS: Final = 0.002  # uvloop counts in milliseconds


async def run_for_client(engine: EngineHandle, items: Sequence[Item], receive: Receive) -> list[Output]:
    """One Output an Item, in order. The client's leaving, or its deadline, cancels the call: its place is free at once.

    Args:
        engine: the engine.
        items: what to run.
        receive: the request's channel, its body already read: the next message can only be the client's leaving.

    Raises:
        ClientDisconnect: the client has gone.
        DeadlineExceeded: the time that the client gave has passed.
        Overloaded, Unavailable: see EngineHandle.
    """
    work = asyncio.ensure_future(engine.run(items))
    watch = asyncio.ensure_future(receive())
    watch.add_done_callback(partial(_cancel, work))
    try:
        async with asyncio.timeout(_seconds_left(items)):
            return await work
    except TimeoutError:
        raise DeadlineExceeded("the time that the request gave has passed before its answer was there") from None
    except asyncio.CancelledError:
        if watch.done() and not watch.cancelled():
            raise ClientDisconnect from None
        raise
    finally:
        work.cancel()
        watch.cancel()
        del work, watch  # an error would hold this frame, and the frame what holds the error


def _cancel(work: asyncio.Future[list[Output]], watch: asyncio.Future[Message]) -> None:
    work.cancel()


def _seconds_left(items: Sequence[Item]) -> float | None:
    """Until the earliest deadline is surely past: timers come a little early, and then nobody would be late."""
    deadlines = [item.terms.deadline for item in items if item.terms.deadline is not None]
    return min(deadlines) - time.monotonic() + _TIMER_SECONDS if deadlines else None


async def in_thread_if(large: bool, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call ``work``, in a thread where it is large, so that other requests go on meanwhile."""
    if large:
        return await asyncio.to_thread(work, *args, **kwargs)
    return work(*args, **kwargs)

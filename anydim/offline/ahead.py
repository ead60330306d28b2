"""Ahead: what comes next is made by a thread while the caller is at work with what came before.

Nobody can end a thread that waits for its source, as for a pipe that stays open and silent. A stop leaves such a thread
behind, which the pools of concurrent.futures never do: these join their threads, at the latest at the interpreter's
end. It knows no records and no shards.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Final, TypeVar

T = TypeVar("T")

_NAME: Final = "anydim-ahead"
_GRACE: Final = 1.0  # seconds in which a thread that is at work, and does not wait, may well come to an end


@contextmanager
def made_ahead(source: Iterator[T]) -> Iterator[Callable[[], Future[T | None]]]:
    """A function that begins to make the next element: None behind the last one, or what the source raises.

    Nothing is made that was not asked for. At the end a thread that still makes something has a moment to come back,
    and is then left behind: it ends when its source lets it.
    """
    asked: SimpleQueue[Future[T | None] | None] = SimpleQueue()
    thread = threading.Thread(target=_make, args=(source, asked), name=_NAME, daemon=True)
    thread.start()

    def begin() -> Future[T | None]:
        future: Future[T | None] = Future()
        asked.put(future)
        return future

    try:
        yield begin
    finally:
        asked.put(None)
        thread.join(_GRACE)


def is_left_behind() -> bool:
    """Whether a thread of this process still makes something that nobody waits for."""
    return any(thread.name == _NAME for thread in threading.enumerate())


def _make(source: Iterator[T], asked: SimpleQueue[Future[T | None] | None]) -> None:
    while (future := asked.get()) is not None:
        try:
            future.set_result(next(source, None))
        except BaseException as error:
            future.set_exception(error)
        del future  # what it holds is the caller's alone

"""Engine: the queue, the loop and its thread, as one object in this process.

It knows Items and Outputs; it knows no HTTP and no text.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Self

from anydim.engine.loop import Loop, Runs
from anydim.engine.queue import Queue, Ticket
from anydim.errors import TooLong
from anydim.types import Item, Output


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """What the engine is doing.

    Attributes:
        alive: whether the loop runs.
        queued_tokens: tokens that wait.
        busy_seconds: how long the batch at hand has taken so far; 0 when idle.
        batches: batches answered since the start.
        tokens: tokens run since the start.
    """

    alive: bool
    queued_tokens: int
    busy_seconds: float
    batches: int
    tokens: int


class Engine:
    """One thread runs the loop; any thread may submit."""

    def __init__(
        self, runner: Runs, batch_tokens: int, queue_tokens: int, in_flight: int = 2, longest: int | None = None
    ) -> None:
        """Start the loop.

        Args:
            runner: a warmed-up runner.
            batch_tokens: most tokens in one forward.
            queue_tokens: most tokens that wait.
            in_flight: batches on the device at once, 1 or 2.
            longest: most tokens of a text that the device's memory holds; None where it holds every text.
        """
        self._longest = longest
        self._queue = Queue(queue_tokens)
        self._loop = Loop(runner, self._queue, batch_tokens, in_flight)
        # The thread does not hold the engine, so that a forgotten one ends with its last reference.
        self._thread = threading.Thread(target=self._loop.run, name="anydim-engine", daemon=True)
        self._thread.start()
        # A thread inside a C++ library must not meet the end of the interpreter.
        weakref.finalize(self, _abandon, self._queue, self._thread)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def submit(self, items: Sequence[Item]) -> Future[list[Output]]:
        """Queue Items; the future gets one Output an Item, in order. Cancelling it frees their place in the queue.

        Raises:
            TooLong: the device's memory does not hold one of them.
            Overloaded: the queue is full.
            Unavailable: the engine is closed or has failed.
        """
        if self._longest is not None:
            _check_lengths(items, self._longest)
        future: Future[list[Output]] = Future()
        if items:
            self._queue.put(Ticket(items, future))
        else:
            future.set_result([])
        return future

    def status(self) -> EngineStatus:
        """A snapshot."""
        loop = self._loop
        return EngineStatus(self._thread.is_alive(), self._queue.tokens, loop.busy_seconds, loop.batches, loop.tokens)

    def close(self) -> None:
        """Answer what waits, then stop and let go of the model. Later submissions are refused."""
        self._queue.close()
        self._thread.join()


def _check_lengths(items: Sequence[Item], longest: int) -> None:
    for item in items:
        if len(item.ids) > longest:
            raise TooLong(
                f"a text has {len(item.ids)} tokens, and the GPU's memory holds texts of up to {longest}; the server's "
                "--mem-fraction-static decides how much of it may be used"
            )


def _abandon(queue: Queue, thread: threading.Thread) -> None:
    """Stop at the end of the interpreter: the batch at hand ends, what waits is dropped."""
    queue.close(discard=True)
    thread.join()

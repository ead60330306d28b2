"""Engine: take, pack, run, answer.

One thread runs the loop; others submit. While the device works on one batch the next is packed and sent. It knows
Items and Outputs; it knows no HTTP and no text.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np

from anydim.engine.packing import pack
from anydim.engine.queue import Entry, Queue, Ticket
from anydim.errors import ComputeFailed, Unavailable
from anydim.types import Batch, Item, Output

_LOG = logging.getLogger(__name__)


class Runs(Protocol):
    """What the loop needs of a runner."""

    def start(self, batch: Batch) -> Any:
        """Send a batch to the device."""
        ...

    def finish(self, flight: Any) -> list[Output]:
        """Wait for it; one Output an Item, in packed order."""
        ...

    def is_fatal(self, error: Exception) -> bool:
        """Whether the device is lost, so that no later batch can succeed."""
        ...


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
    """The loop, its queue and its thread."""

    def __init__(self, runner: Runs, batch_tokens: int, queue_tokens: int) -> None:
        """Start the loop.

        Args:
            runner: a warmed-up runner.
            batch_tokens: most tokens in one forward.
            queue_tokens: most tokens that wait.
        """
        self._runner = runner
        self._budget = batch_tokens
        self._queue = Queue(queue_tokens)
        self._busy_since: float | None = None
        self._ahead: _Running | None = None
        self._batches = self._tokens = 0
        self._thread = threading.Thread(target=self._loop, name="anydim-engine", daemon=True)
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
            Overloaded: the queue is full.
            Unavailable: the engine is closed.
        """
        future: Future[list[Output]] = Future()
        if items:
            self._queue.put(Ticket(items, future))
        else:
            future.set_result([])
        return future

    def status(self) -> EngineStatus:
        """A snapshot."""
        since = self._busy_since
        busy = 0.0 if since is None else time.monotonic() - since
        return EngineStatus(self._thread.is_alive(), self._queue.tokens, busy, self._batches, self._tokens)

    def close(self) -> None:
        """Answer what waits, then stop. Later submissions are refused."""
        self._queue.close()
        self._thread.join()

    def _loop(self) -> None:
        try:
            while self._step():
                pass
        except Exception as error:
            _LOG.critical("the engine stops: %s", error)
            self._fail_everyone(Unavailable(f"the engine has failed ({type(error).__name__}); send the request again"))

    def _step(self) -> bool:
        """Take, pack and send one batch, then answer the one before; false at the end."""
        entries = self._queue.take(self._budget, wait=self._ahead is None)
        if not entries and self._ahead is None:
            return False
        following = self._start(entries) if entries else None
        before, self._ahead = self._ahead, following
        if before is not None:
            self._answer(before)
        self._busy_since = None if following is None else time.monotonic()
        return True

    def _start(self, entries: list[Entry]) -> _Running | None:
        self._busy_since = self._busy_since or time.monotonic()
        try:
            batch = pack([entry.item for entry in entries])
            return _Running(entries, batch, self._runner.start(batch))
        except Exception as error:
            self._recover(entries, error)
            return None

    def _answer(self, running: _Running) -> None:
        try:
            outputs = self._runner.finish(running.flight)
        except Exception as error:
            self._recover(running.entries, error)
            return
        for place, output in zip(running.batch.order_B.tolist(), outputs, strict=True):
            running.entries[place].answer(output)
        self._batches += 1
        self._tokens += running.batch.tokens

    def _recover(self, entries: list[Entry], error: Exception) -> None:
        """A batch failed: run its halves, down to the inputs that fail alone, so that no other one is lost."""
        if self._runner.is_fatal(error):
            for entry in entries:
                entry.ticket.fail(Unavailable("the device has failed; send the request again"))
            raise error
        if len(entries) == 1:
            _LOG.error("an input of %d tokens failed: %s", len(entries[0].item.ids), error)
            failure = ComputeFailed(f"the model failed on this input: {type(error).__name__}")
            entries[0].answer(Output(np.empty(0, np.float32), error=failure))
            return
        _LOG.warning("a batch of %d inputs failed (%s); running its halves", len(entries), error)
        middle = len(entries) // 2
        for half in (entries[:middle], entries[middle:]):
            running = self._start(half)
            if running is not None:
                self._answer(running)

    def _fail_everyone(self, error: Unavailable) -> None:
        self._queue.close()
        left = [] if self._ahead is None else [*self._ahead.entries]
        left += self._queue.take(sys.maxsize, wait=False)
        for entry in left:
            entry.ticket.fail(error)


def _abandon(queue: Queue, thread: threading.Thread) -> None:
    """Stop at the end of the interpreter: the batch at hand ends, what waits is dropped."""
    queue.close(discard=True)
    thread.join()


@dataclass(frozen=True, slots=True)
class _Running:
    """A batch between start and answer."""

    entries: list[Entry]
    batch: Batch
    flight: Any

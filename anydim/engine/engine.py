"""Engine: the queue, the loop and its thread, as one object in this process.

It knows Items and Outputs; it knows no HTTP and no text.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Self

import msgspec

from anydim.engine.cache import VectorCache
from anydim.engine.limits import too_long
from anydim.engine.loop import Loop, Runs
from anydim.engine.metrics import EngineCounts, Pace
from anydim.engine.policy import Policy
from anydim.engine.queue import Queue
from anydim.engine.work import Derive, Ticket
from anydim.errors import Unavailable
from anydim.types import Item, Output

_LAST_SECONDS: Final = 5.0  # for a loop whose device is lost

DeviceMemory = tuple[int, int, int]
"""Bytes that live tensors take, that torch has taken from the device, and that the device has."""


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """What the engine is doing.

    Attributes:
        alive: whether the loop runs.
        busy_seconds: how long the batch at hand has taken so far; 0 when idle.
        counts: what it has counted so far.
    """

    alive: bool
    busy_seconds: float
    counts: EngineCounts


class Engine:
    """One thread runs the loop; any thread may submit."""

    def __init__(
        self,
        runner: Runs,
        policy: Policy,
        in_flight: int = 2,
        *,
        derive: Derive | None = None,
        cache_bytes: int = 0,
        memory: Callable[[], DeviceMemory] | None = None,
        longest: int | None = None,
        tokens_here: int = 0,
        may_run_here: Callable[[], bool] = lambda: True,
        after: Callable[[], None] | None = None,
    ) -> None:
        """Start the loop.

        Args:
            runner: a warmed-up runner.
            policy: the queue's limits.
            in_flight: batches on the device at once, 1 or 2.
            derive: makes other forms of raw vectors, where the policy has raw ones.
            cache_bytes: most bytes of raw vectors that are kept; 0 keeps none.
            memory: the device's memory, where it has its own.
            longest: most tokens of a text that the device's memory holds; None where it holds every text.
            tokens_here: most tokens of a submission that ``run`` may run in the thread that brings it.
            may_run_here: whether the thread that asks computes as the loop's does.
            after: called when the loop has ended after ``close``.
        """
        self.reason = ""
        """Why the engine has failed, where that is known."""
        self._after = after
        self._began = time.monotonic()
        self._memory = memory
        self._longest = longest
        self._tokens_here = tokens_here
        self._may_run_here = may_run_here
        self._policy = policy
        self._counts, pace = EngineCounts(), Pace()
        self._cache: VectorCache | None = None
        if cache_bytes and derive:
            self._cache = VectorCache(cache_bytes, derive, self._counts, policy.has_raw)
        self._queue = Queue(policy, self._counts, rate=lambda: pace.rate)
        self._loop = Loop(runner, self._queue, self._counts, pace, in_flight, derive, self._cache)
        # The thread does not hold the engine, so that a forgotten one ends with its last reference.
        self._thread = threading.Thread(target=self._loop.run, name="anydim-engine", daemon=True)
        self._thread.start()
        # A thread inside a C++ library must not meet the end of the interpreter.
        self._finalizer = weakref.finalize(self, _abandon, self._queue, self._thread)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def submit(self, items: Sequence[Item]) -> Future[list[Output]]:
        """Queue Items; the future gets one Output an Item, in order. Cancelling it frees their place in the queue.

        Raises:
            TooLong: the device's memory does not hold one of them.
            Overloaded: the queue is full.
            DeadlineExceeded: the Items' deadline has passed.
            Unavailable: the engine is closed or has failed.
        """
        ticket = self._ticket(items)
        if ticket.open:
            self._queue.put(ticket)
        return ticket.future

    def run(self, items: Sequence[Item]) -> list[Output]:
        """Run Items and wait: one Output an Item, in order.

        A few tokens that come while the engine is idle run in this thread.

        Raises:
            AnydimError: as ``submit``, and what the future gets.
        """
        ticket = self._ticket(items)
        if ticket.open:
            if ticket.tokens <= self._tokens_here and self._may_run_here():
                self._loop.run_here(ticket)
            else:
                self._queue.put(ticket)
        try:
            return ticket.future.result()
        finally:
            del ticket  # an error would hold this frame, and the frame what holds the error

    def _ticket(self, items: Sequence[Item]) -> Ticket:
        limits = self._policy.limits(items[0].model if items else 0)
        longest = self._longest if limits.longest is None else limits.longest
        if refusal := too_long(items, longest):
            raise refusal
        ticket = Ticket(items, Future(), self._cache.find(items) if self._cache else {}, limits.per_token)
        if not ticket.open:
            ticket.future.set_result(list(ticket.known.values()))
        return ticket

    def status(self) -> EngineStatus:
        """A snapshot."""
        counts = msgspec.structs.replace(self._counts, uptime_seconds=time.monotonic() - self._began)
        counts.queued_tokens, counts.queued_texts = self._queue.tokens, self._queue.texts
        if self._memory is not None:
            counts.device_used_bytes, counts.device_reserved_bytes, counts.device_total_bytes = self._memory()
        alive = self._thread.is_alive() and not self.reason
        return EngineStatus(alive, self._loop.busy_seconds, counts)

    def lose(self, reason: str) -> None:
        """What the loop cannot work without is lost: answer everyone, and take nothing more."""
        self.reason = reason
        self._finalizer.detach()  # the loop may be waiting for what is lost
        self._loop.fail(Unavailable(f"the engine has failed ({reason}); send the request again"))

    def close(self) -> None:
        """Answer what waits, then stop and let go of the model. Later submissions are refused."""
        self._queue.close()
        self._thread.join(_LAST_SECONDS if self.reason else None)
        if self._after is not None:
            self._after()


def _abandon(queue: Queue, thread: threading.Thread) -> None:
    """Stop at the end of the interpreter: the batch at hand ends, what waits is dropped."""
    queue.close(discard=True)
    thread.join()

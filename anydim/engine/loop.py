"""Loop: take, pack, run, answer.

While the device works on one batch the next is packed and sent. Whatever happens, everyone who waits is answered. It
knows the queue and a runner; it knows no threads, no HTTP and no text.
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from anydim.engine.packing import pack
from anydim.engine.queue import Entry, Queue
from anydim.errors import ComputeFailed, Unavailable
from anydim.types import Batch, Output

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
class _Running:
    """A batch between start and answer."""

    entries: list[Entry]
    batch: Batch
    flight: Any


class Loop:
    """The loop's state; ``run`` is the body of the engine's thread."""

    def __init__(self, runner: Runs, queue: Queue, budget: int, in_flight: int = 2) -> None:
        """Prepare a loop over ``queue`` with batches of at most ``budget`` tokens, one or two on the device at once."""
        self._runner = runner
        self._queue = queue
        self._budget = budget
        self._in_flight = in_flight
        self._ahead: _Running | None = None
        self._in_hand: list[Entry] = []
        self._busy_since: float | None = None
        self.batches = 0
        self.tokens = 0

    @property
    def busy_seconds(self) -> float:
        """How long the batch at hand has taken so far; 0 when idle."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    def run(self) -> None:
        """Work until the queue is closed and empty, or the device is lost."""
        try:
            while self._step():
                pass
        except Exception as error:
            _LOG.critical("the engine stops: %s", error)
            self._fail_everyone(Unavailable(f"the engine has failed ({type(error).__name__}); send the request again"))
        finally:
            del self._runner  # the model goes when the loop ends, whoever still holds the engine

    def _step(self) -> bool:
        """Take, pack and send one batch, then answer the one before; false at the end."""
        before = self._ahead
        entries = self._queue.take(self._budget, wait=before is None)
        if not entries and before is None:
            return False
        self._in_hand = [*entries, *(before.entries if before else [])]
        self._ahead = self._start(entries) if entries else None
        if before is not None:
            self._answer(before)
        if self._in_flight == 1 and self._ahead is not None:
            self._answer(self._ahead)
            self._ahead = None
        self._busy_since = None if self._ahead is None else time.monotonic()
        return True

    def _start(self, entries: list[Entry]) -> _Running | None:
        self._busy_since = self._busy_since or time.monotonic()
        try:
            batch = pack([entry.item for entry in entries])
            return _Running(entries, batch, self._runner.start(batch))
        except Exception as error:
            failure = error.with_traceback(None)  # its frames hold the failed forward's memory
        self._recover(entries, failure)
        return None

    def _answer(self, running: _Running) -> None:
        try:
            outputs = self._runner.finish(running.flight)
        except Exception as error:
            failure = error.with_traceback(None)
        else:
            for place, output in zip(running.batch.order_B.tolist(), outputs, strict=True):
                running.entries[place].answer(output)
            self.batches += 1
            self.tokens += running.batch.tokens
            return
        self._recover(running.entries, failure)

    def _recover(self, entries: list[Entry], error: Exception) -> None:
        """A batch failed: run its halves, down to the inputs that fail alone, so that no other one is lost."""
        if self._runner.is_fatal(error):
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
        for entry in [*self._in_hand, *self._queue.take(sys.maxsize, wait=False)]:
            entry.ticket.fail(error)

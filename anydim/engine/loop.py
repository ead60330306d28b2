"""Loop: take, pack, run, answer.

While the device works on one batch the next is packed and sent. Whatever happens, everyone who waits is answered. A
small submission that comes while nothing is under way may run in the thread that brings it, which saves two changes of
thread. It knows the queue and a runner; it starts no threads, and knows no HTTP and no text.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from anydim.engine.cache import VectorCache
from anydim.engine.metrics import Cause, EngineCounts, Pace
from anydim.engine.packing import pack
from anydim.engine.queue import Queue, Taken
from anydim.engine.work import Answer, Derive, Ticket, Work, hand_out
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

    def rescue(self, batch: Batch) -> list[Output]:
        """Run a batch whose vectors were not finite once more, with float32 weights; the same where that is no use."""
        ...

    def is_fatal(self, error: Exception) -> bool:
        """Whether the device is lost, so that no later batch can succeed."""
        ...

    def cause(self, error: Exception) -> Cause:
        """What an error is counted as."""
        ...


@dataclass(frozen=True, slots=True)
class _Running:
    """A batch between start and answer."""

    works: Sequence[Work]
    batch: Batch
    flight: Any
    sent: float


class Loop:
    """The loop's state; ``run`` is the body of the engine's thread, ``run_here`` a batch of somebody else's."""

    def __init__(
        self,
        runner: Runs,
        queue: Queue,
        counts: EngineCounts,
        pace: Pace,
        in_flight: int = 2,
        derive: Derive | None = None,
        cache: VectorCache | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepare a loop.

        Args:
            runner: a warmed-up runner.
            queue: where the work comes from.
            counts: where it counts.
            pace: where it notes the device's rate.
            in_flight: batches on the device at once, 1 or 2.
            derive: makes other forms of raw vectors, or None where there are none.
            cache: keeps raw vectors, or None.
            clock: seconds.
        """
        self._runner = runner
        self._queue = queue
        self._counts = counts
        self._pace = pace
        self._in_flight = in_flight
        self._derive = derive
        self._cache = cache
        self._clock = clock
        self._turn = threading.Lock()  # held by whoever runs batches
        self._lost: Exception | None = None
        self._ahead: tuple[Taken, _Running] | None = None
        self._in_hand: list[Work] = []
        self._busy_since: float | None = None
        self._last_answer = 0.0

    @property
    def busy_seconds(self) -> float:
        """How long the batch at hand has taken so far; 0 when idle."""
        since = self._busy_since
        return 0.0 if since is None else self._clock() - since

    def run(self) -> None:
        """Work until the queue is closed and empty, or the device is lost."""
        try:
            while self._queue.wait(self._is_due):
                with self._turn:
                    self._step()
        except Exception as error:
            _LOG.critical("the engine stops: %s", error)
            self.fail(Unavailable(f"the engine has failed ({type(error).__name__}); send the request again"))
        finally:
            with self._turn:
                del self._runner  # the model goes when the loop ends, whoever still holds the engine

    def run_here(self, ticket: Ticket) -> None:
        """Queue a submission, and where nothing is under way run the batch that it makes in this thread.

        Raises:
            AnydimError: as Queue.put.
        """
        held: list[bool] = []
        try:
            # One call, since Ctrl-C comes between two: the lock is never taken without a note of it.
            held.extend(map(self._turn.acquire, (False,)))
            alone = held[0] and not self._is_due() and not self._queue.texts
            self._queue.put(ticket, wake=not alone)
            if alone:
                self._step_alone()
        finally:
            if True in held:
                try:
                    if self._is_due() or self._queue.texts:
                        self._queue.wake()
                finally:
                    self._turn.release()

    def _is_due(self) -> bool:
        """Whether there is something to do for the loop's thread, though nothing waits."""
        return self._ahead is not None or self._lost is not None

    def _step_alone(self) -> None:
        """One batch from its start to its answer. Who waits for it in other threads is answered even on Ctrl-C here."""
        taken: Taken | None = None
        try:
            taken = self._queue.take()
            self._in_hand = list(taken.works)
            running = self._start(taken.works) if taken.works else None
            if running is not None:
                self._counts.short_batches += not taken.is_bulk
                self._answer(running)
        except Exception as error:
            self._lost = error  # the loop's thread ends with it, and answers everyone
        except BaseException:
            for work in self._queue.strays() if taken is None else taken.works:
                self._queue.settle(work)
                work.fail(Unavailable("the thread that ran this batch was interrupted; send it again"))
            raise
        finally:
            if taken is not None:
                self._queue.done(taken)
            self._busy_since = None

    def _step(self) -> None:
        """Take, pack and send one batch, then answer the one before.

        Before bulk work is sent short work is answered: it is there sooner than a large batch is sent.
        """
        if self._lost is not None:
            raise self._lost
        before = self._ahead
        taken = self._queue.take()
        self._in_hand = [*taken.works, *(before[1].works if before else [])]
        if before is not None and taken.is_bulk and not before[0].is_bulk:
            self._ahead = None
            self._finish(*before)
            before = None
        self._ahead = self._send(taken) if taken.works else None
        if before is not None:
            self._finish(*before)
        if self._in_flight == 1 and self._ahead is not None:
            self._finish(*self._ahead)
            self._ahead = None
        self._busy_since = None if self._ahead is None else self._clock()
        self._counts.running_tokens = 0 if self._ahead is None else self._ahead[1].batch.tokens

    def _send(self, taken: Taken) -> tuple[Taken, _Running] | None:
        running = self._start(taken.works)
        if running is None:
            self._queue.done(taken)
            return None
        self._counts.short_batches += not taken.is_bulk
        return taken, running

    def _finish(self, taken: Taken, running: _Running) -> None:
        try:
            self._answer(running)
        finally:
            self._queue.done(taken)

    def _start(self, works: Sequence[Work]) -> _Running | None:
        began = self._clock()
        self._busy_since = self._busy_since or began
        try:
            batch = pack([work.item for work in works])
            running = _Running(works, batch, self._runner.start(batch), began)
            self._counts.pack_seconds.add(self._clock() - began)
            return running
        except Exception as error:
            failure = error.with_traceback(None)  # its frames hold the failed forward's memory
        self._recover(works, failure)
        return None

    def _answer(self, running: _Running) -> None:
        try:
            outputs = self._runner.finish(running.flight)
        except Exception as error:
            failure = error.with_traceback(None)
        else:
            arrived = self._clock()
            works = [running.works[place] for place in running.batch.order_B.tolist()]
            self._count(running, arrived)
            self._hand_out(works, outputs)
            self._counts.answer_seconds.add(self._clock() - arrived)
            return
        self._recover(running.works, failure)

    def _hand_out(self, works: Sequence[Work], outputs: Sequence[Output]) -> None:
        good = [
            output if output.error is None else self._rescue(work, output)
            for work, output in zip(works, outputs, strict=True)
        ]
        for work, output in zip(works, good, strict=True):
            if self._cache is not None and output.error is None:
                self._cache.add(work.item, output)
        # Only now: whoever is settled is out of reach of ``fail``.
        answers = [Answer(work, self._queue.settle(work), output) for work, output in zip(works, good, strict=True)]
        try:
            hand_out(answers, self._derive)
        except BaseException:
            for work in works:
                work.fail(Unavailable("the engine stopped while it handed out answers; send it again"))
            raise

    def _rescue(self, work: Work, failed: Output) -> Output:
        """A text whose vector is not finite, alone and with float32 weights; the first error where that fails too."""
        self._counts.upcast_texts += 1
        try:
            (output,) = self._runner.rescue(pack([work.item]))
        except Exception as error:
            if self._runner.is_fatal(error):
                raise
            _LOG.error("an input of %d tokens failed in float32 too: %s", work.length, error)
            output = failed
        if output.error is not None:
            self._counts.failed("not_finite")
        return output

    def _count(self, running: _Running, now: float) -> None:
        counts, tokens = self._counts, sum(work.length for work in running.works)
        busy = now - max(running.sent, self._last_answer)
        self._last_answer = now
        self._pace.add(sum(work.tokens for work in running.works), busy)
        counts.tokens_per_second = self._pace.rate
        counts.busy_seconds += busy
        counts.batches += 1
        counts.tokens += tokens
        counts.batch_tokens.add(tokens)
        counts.batch_texts.add(len(running.works))
        counts.run_seconds.add(now - running.sent)

    def _recover(self, works: Sequence[Work], error: Exception) -> None:
        """A batch failed: run its halves, down to the inputs that fail alone, so that no other one is lost."""
        if self._runner.is_fatal(error):
            raise error
        if len(works) == 1:
            _LOG.error("an input of %d tokens failed: %s", works[0].length, error)
            self._counts.failed(self._runner.cause(error))
            failure = ComputeFailed(f"the model failed on this input: {type(error).__name__}")
            output = Output(np.empty(0, np.float32), error=failure)
            hand_out([Answer(works[0], self._queue.settle(works[0]), output)], None)
            return
        _LOG.warning("a batch of %d inputs failed (%s); running its halves", len(works), error)
        self._counts.split_batches += 1
        middle = len(works) // 2
        for half in (works[:middle], works[middle:]):
            running = self._start(half)
            if running is not None:
                self._answer(running)

    def fail(self, error: Unavailable) -> None:
        """Close the queue and answer everyone with an error; from any thread."""
        self._queue.fail(error)
        for work in self._in_hand:
            for claim in self._queue.settle(work):
                claim.ticket.fail(error)

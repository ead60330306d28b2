"""Queueing: the engine's own queue under made-up traffic, in simulated time.

Not a script. Policy, lanes, slices, shares and refusals are the code that a server runs (anydim/engine/queue.py); the
device is a formula (service_times.py), front ends are a delay, and the clock moves from event to event. The loop is
that of anydim/engine/loop.py: the next batch is taken and sent before the one before it is answered.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from anydim.engine.policy import Policy
from anydim.engine.prefixes import find_prefixes
from anydim.engine.queue import Queue, Taken
from anydim.engine.work import Answer, Ticket, hand_out
from anydim.errors import Overloaded
from anydim.types import Item, Output
from benchmarks.corpus import Corpus
from benchmarks.service_times import ServiceTimes

FRONT_SECONDS: Final = 0.35e-3
FRONT_TEXT_SECONDS: Final = 0.057e-3

_NOTHING: Final = np.empty(0, np.float32)
_GRAPH_TOKENS: Final = 1024  # batches up to here replay a graph, which knows no shared beginnings
_DIM: Final = 32

Draw = Callable[[], Sequence[Item]]
"""The texts of the next request."""

Delay = Callable[[], float]
"""Seconds that the next request waits for things outside the server and the device."""


@dataclass(slots=True)
class Seen:
    """What clients saw of one kind of request.

    Attributes:
        answered: seconds from when it was due until its answer, one a request.
        tokens: of what was answered.
        refused: requests that were turned away.
        began, ended: when the first was due and the last was answered.
        took: seconds, where several stretches of time are joined.
    """

    answered: list[float] = field(default_factory=list)
    tokens: int = 0
    refused: int = 0
    began: float = 0.0
    ended: float = 0.0
    took: float = 0.0

    def join(self, other: Seen) -> None:
        """Count what was seen in another stretch of time as well."""
        self.answered += other.answered
        self.tokens += other.tokens
        self.refused += other.refused
        self.took += other.took or other.ended - other.began

    def quantile(self, part: float) -> float:
        """Milliseconds that this part of the answers stayed below."""
        ordered = sorted(self.answered)
        return 1e3 * ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else math.nan

    def row(self) -> dict[str, float]:
        """The columns of `load`."""
        took = self.took or max(self.ended - self.began, 1e-9)
        return {
            "answered": len(self.answered),
            "requests_per_s": len(self.answered) / took,
            "tokens_per_s": self.tokens / took,
            "p50_ms": self.quantile(0.5),
            "p99_ms": self.quantile(0.99),
        }


class Clock:
    """Events in order of their time."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Do something then, or now where that has passed."""
        heapq.heappush(self._events, (max(when, self.now), next(self._numbers), what))

    def run(self) -> None:
        """Until nothing is left to do."""
        while self._events:
            self.now, _, what = heapq.heappop(self._events)
            what()


class FrontEnds:
    """The front ends of a server: each reads and answers one request after another.

    Source of the two constants: `load` on the 16 cores beside an H100, where one front end took 2,456 requests of one
    text a second, and at least 563 of sixteen; what a further text costs is an estimate within that bound.
    """

    def __init__(self, clock: Clock, count: int = 1) -> None:
        """So many idle ones."""
        self._clock = clock
        self._free = [0.0] * count

    def half(self, texts: int, then: Callable[[], None]) -> None:
        """Read or answer a request of so many texts, when its turn comes."""
        place = min(range(len(self._free)), key=self._free.__getitem__)
        self._free[place] = max(self._free[place], self._clock.now) + (FRONT_SECONDS + FRONT_TEXT_SECONDS * texts) / 2
        self._clock.at(self._free[place], then)


class Engine:
    """One engine and its front ends: the real queue before a simulated device."""

    def __init__(
        self,
        clock: Clock,
        policy: Policy,
        times: ServiceTimes,
        delay: Delay = lambda: 0.0,
        fronts: int = 1,
        gap: float = 0.0,
    ) -> None:
        """Idle.

        Args:
            clock: the time.
            policy: the limits of its queue.
            times: of its device.
            delay: what a request waits outside, half of it before and half behind.
            fronts: front ends.
            gap: seconds that a batch without a graph takes more where the device had nothing to do until it came.
        """
        self._clock = clock
        self._gap = gap
        self._times = times
        self._delay = delay
        self._front = FrontEnds(clock, fronts)
        self.queue = Queue(policy, clock=lambda: clock.now)
        self._ahead: tuple[Taken, float] | None = None
        self._device_free = 0.0
        self._is_idle = True
        self._unsent = 0
        self.busy_seconds = 0.0

    @property
    def load(self) -> float:
        """Seconds of work at hand, for a dispatcher."""
        waiting = (self.queue.tokens + self._unsent) * self._times.per_token
        return waiting + max(0.0, self._device_free - self._clock.now)

    def ask(self, items: Sequence[Item], due: float, seen: Seen, then: Callable[[], None] = lambda: None) -> None:
        """A request, sent now; ``then`` is called when its client has an answer."""
        future: Future[list[Output]] = Future()
        half = self._delay() / 2

        def arrive() -> None:
            try:
                self.queue.put(Ticket(items, future))
            except Overloaded:
                seen.refused += 1
                self._front.half(0, lambda: self._clock.at(self._clock.now + half, then))
                return
            future.add_done_callback(lambda _: self._front.half(len(items), leave))
            if self._is_idle:
                self._is_idle = False
                self._clock.at(self._clock.now, self._step)

        def leave() -> None:
            self._clock.at(self._clock.now + half, answered)

        def answered() -> None:
            seen.answered.append(self._clock.now - due)
            seen.tokens += sum(len(item.ids) for item in items)
            seen.ended = self._clock.now
            then()

        self._clock.at(self._clock.now + half, lambda: self._front.half(len(items), arrive))

    def _step(self) -> None:
        """Take and send one batch, then answer the one before, or answer it first, as the engine's loop does."""
        before, self._ahead = self._ahead, None
        taken = self.queue.take()
        if before is not None and taken.is_bulk and not before[0].is_bulk:
            self._unsent = sum(work.tokens for work in taken.works)
            self._clock.at(before[1], lambda: self._answer_and_send(before[0], taken))
        else:
            self._send(taken, before)

    def _answer_and_send(self, before: Taken, taken: Taken) -> None:
        self._answer(before)
        self._unsent = 0
        self._send(taken, None)

    def _send(self, taken: Taken, before: tuple[Taken, float] | None) -> None:
        if taken.works:
            seconds = self._seconds(taken)
            if (
                self._device_free < self._clock.now + self._gap
                and sum(work.length for work in taken.works) > _GRAPH_TOKENS
            ):
                seconds += self._gap
            self._device_free = max(self._clock.now, self._device_free) + seconds
            self.busy_seconds += seconds
            self._ahead = taken, self._device_free
        if before is not None:
            self._clock.at(before[1], lambda: self._finish(before[0]))
        elif self._ahead is not None:
            self._clock.at(self._clock.now, self._step)
        else:
            self._is_idle = True

    def _seconds(self, taken: Taken) -> float:
        """Of a batch, with what its texts begin with in common computed once, as the runner does."""
        texts = [work.item.ids for work in taken.works]
        lengths = [len(ids) for ids in texts]
        found = None
        if sum(lengths) > _GRAPH_TOKENS:
            found = find_prefixes(np.concatenate(texts), np.cumsum([0, *lengths], dtype=np.int32))
        if found is None:
            return self._times(lengths)
        members = np.bincount(found.prefix_B[found.prefix_B >= 0], minlength=len(found.lengths_P))
        return self._times(lengths, int(((members - 1) * found.lengths_P).sum()))

    def _finish(self, taken: Taken) -> None:
        self._answer(taken)
        self._step()

    def _answer(self, taken: Taken) -> None:
        output = Output(_NOTHING)
        hand_out([Answer(work, self.queue.settle(work), output) for work in taken.works], None)
        self.queue.done(taken)


def spread(mean: float, sigma: float, most: int, texts: int = 1, seed: int = 0) -> Draw:
    """Texts of lognormal lengths of a given mean, cut at ``most``, no two of them equal.

    Args:
        mean: tokens of a text.
        sigma: of the logarithm.
        most: the longest.
        texts: of a request.
        seed: of the draws.
    """
    draws, numbers = random.Random(seed), itertools.count()
    middle = math.log(mean) - sigma * sigma / 2

    def item() -> Item:
        ids = np.zeros(max(1, min(most, round(draws.lognormvariate(middle, sigma)))), np.int32)
        ids[0] = next(numbers)
        return Item(ids=ids, dim=_DIM)

    return lambda: [item() for _ in range(texts)]


def lines(mean: float, texts: int, seed: int = 0) -> Draw:
    """Requests like those of Corpus.lines: two of its sentences a text, of so many tokens in the mean.

    Equal texts share a forward and equal beginnings are computed once, as on a server. A sentence has as many tokens as
    its part of the characters says.
    """
    draws, sizes = random.Random(seed), [len(sentence) for sentence in Corpus("en").sentences]
    scale = mean / 2 / (sum(sizes) / len(sizes))
    counts = [max(1, round(size * scale)) for size in sizes]
    starts = [0, *itertools.accumulate(counts)]
    sentences = [np.arange(start, start + count, dtype=np.int32) for start, count in zip(starts, counts, strict=False)]
    return lambda: [Item(ids=np.concatenate(draws.sample(sentences, 2)), dim=_DIM) for _ in range(texts)]


def again(draw: Draw, count: int) -> Draw:
    """So many requests in turn: what is under way when it comes again shares a forward."""
    turn = itertools.cycle([draw() for _ in range(count)])
    return lambda: next(turn)


def jitter(median: float, sigma: float, seed: int = 0) -> Delay:
    """Delays of a lognormal distribution."""
    draws = random.Random(seed)
    return lambda: draws.lognormvariate(math.log(median), sigma) if median > 0 else 0.0


def steady(rate: float, begin: float, seconds: float) -> Iterator[float]:
    """Moments of requests at even distances."""
    return (begin + number / rate for number in range(int(rate * seconds)))


def poisson(rate: float, begin: float, seconds: float, seed: int = 0) -> Iterator[float]:
    """Moments of independent requests."""
    draws = random.Random(seed)
    moment = begin + draws.expovariate(rate)
    while moment < begin + seconds:
        yield moment
        moment += draws.expovariate(rate)


def bursts(rate: float, begin: float, seconds: float, seed: int = 0) -> Iterator[float]:
    """The same rate in the mean, but in every second two tenths with twice as much and eight with three quarters."""
    draws, moment = random.Random(seed), begin
    while moment < begin + seconds:
        moment += draws.expovariate(rate * (2.0 if moment % 1.0 < 0.2 else 0.75))
        if moment < begin + seconds:
            yield moment


def offer(clock: Clock, pick: Callable[[], Engine], moments: Iterator[float], draw: Draw) -> Seen:
    """Requests at given moments, whatever becomes of them; each goes to the engine that ``pick`` names then."""
    seen = Seen(began=math.inf)
    for moment in moments:
        seen.began = min(seen.began, moment)
        clock.at(moment, lambda moment=moment: pick().ask(draw(), moment, seen))  # type: ignore[misc]
    return seen


def saturate(clock: Clock, engine: Engine, connections: int, draw: Draw, begin: float, seconds: float) -> Seen:
    """Connections that each send the next request when the last is answered, until the time is over."""
    seen = Seen(began=begin)

    def send() -> None:
        if clock.now < begin + seconds:
            engine.ask(draw(), clock.now, seen, send)

    for _ in range(connections):
        clock.at(begin, send)
    return seen


def least_loaded(engines: Sequence[Engine], seed: int = 0) -> Callable[[], Engine]:
    """Of two engines drawn at random the one with less to do: what Ray Serve's router does."""
    draws = random.Random(seed)

    def pick() -> Engine:
        return min((draws.choice(engines) for _ in range(2)), key=lambda engine: engine.load)

    return pick

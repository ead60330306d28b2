"""Metrics: what the engine counts, as plain numbers that cross the socket. Imports no torch.

It knows names and numbers; it knows no formats, no HTTP and no text. Every figure is of one engine's life: a restarted
engine begins at zero. Times are in seconds, sizes in tokens, texts or bytes, as the names say.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

TOKEN_BOUNDS: Final = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536)
TEXT_BOUNDS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
SECOND_BOUNDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

Cause = Literal["failed", "not_finite", "out_of_memory", "overloaded", "deadline", "cancelled", "unavailable"]


class Histogram(msgspec.Struct, kw_only=True):
    """How often values fell where.

    Attributes:
        bounds: upper bounds, ascending; a value belongs to the first bound that it does not exceed.
        counts: one more than ``bounds``, for what exceeds them all; not cumulative.
        total: the sum of all values.
    """

    bounds: tuple[float, ...]
    counts: list[int]
    total: float = 0.0

    @classmethod
    def of(cls, bounds: tuple[float, ...]) -> Histogram:
        """An empty one."""
        return cls(bounds=bounds, counts=[0] * (len(bounds) + 1))

    def add(self, value: float, times: int = 1) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times


def _tokens() -> Histogram:
    return Histogram.of(TOKEN_BOUNDS)


def _texts() -> Histogram:
    return Histogram.of(TEXT_BOUNDS)


def _seconds() -> Histogram:
    return Histogram.of(SECOND_BOUNDS)


class EngineCounts(msgspec.Struct, kw_only=True):
    """Everything that the engine counts.

    What is true now:

    Attributes:
        queued_tokens: tokens that wait.
        queued_texts: texts that wait; equal ones count once.
        running_tokens: tokens on the device.
        tokens_per_second: the rate while the device works, lately.
        uptime_seconds: since the loop began.
        device_used_bytes: the device's memory that torch holds for live tensors; 0 on a CPU.
        device_reserved_bytes: what torch has taken from the device.
        device_total_bytes: what the device has.
        cache_bytes: vectors that the cache holds.

    What only grows:

    Attributes:
        submissions: requests for work, admitted or not.
        texts: texts admitted.
        batches: forwards answered.
        tokens: tokens that forwards ran, shared prefixes counted once a text.
        padding_tokens: tokens that no text asked for; always 0, since batches are packed.
        short_batches: forwards of short work alone.
        busy_seconds: time in which the device had work; 1 less its share of uptime_seconds is the idle share.
        deduplicated: texts answered by the forward of an equal text.
        cache_hits: texts answered from the cache.
        cache_misses: texts that the cache did not hold; 0 where there is no cache.
        split_batches: batches that failed and were run in halves.
        upcast_texts: texts whose vector was not finite, which run again with float32 weights where theirs are narrower.
        errors: inputs or submissions that got no vector, by cause (see Cause).

    Histograms:

    Attributes:
        batch_tokens: tokens of a forward.
        batch_texts: texts of a forward.
        queue_seconds: from a text's arrival until a batch takes it.
        pack_seconds: packing a batch and sending it to the device.
        run_seconds: from sending a batch until its vectors are in host memory.
        answer_seconds: handing the vectors out.
    """

    queued_tokens: int = 0
    queued_texts: int = 0
    running_tokens: int = 0
    tokens_per_second: float = 0.0
    uptime_seconds: float = 0.0
    device_used_bytes: int = 0
    device_reserved_bytes: int = 0
    device_total_bytes: int = 0
    cache_bytes: int = 0

    submissions: int = 0
    texts: int = 0
    batches: int = 0
    tokens: int = 0
    padding_tokens: int = 0
    short_batches: int = 0
    busy_seconds: float = 0.0
    deduplicated: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    split_batches: int = 0
    upcast_texts: int = 0
    errors: dict[str, int] = msgspec.field(default_factory=dict)

    batch_tokens: Histogram = msgspec.field(default_factory=_tokens)
    batch_texts: Histogram = msgspec.field(default_factory=_texts)
    queue_seconds: Histogram = msgspec.field(default_factory=_seconds)
    pack_seconds: Histogram = msgspec.field(default_factory=_seconds)
    run_seconds: Histogram = msgspec.field(default_factory=_seconds)
    answer_seconds: Histogram = msgspec.field(default_factory=_seconds)

    def failed(self, cause: Cause, times: int = 1) -> None:
        """Count an error."""
        self.errors[cause] = self.errors.get(cause, 0) + times


def summed(counts: Sequence[EngineCounts]) -> EngineCounts:
    """The sums over several engines; of the seconds since they began the most."""
    whole = EngineCounts()
    for each in counts:
        for name in EngineCounts.__struct_fields__:
            setattr(whole, name, _plus(getattr(whole, name), getattr(each, name)))
    whole.uptime_seconds = max((each.uptime_seconds for each in counts), default=0.0)
    return whole


def _plus(left: Any, right: Any) -> Any:
    if isinstance(left, Histogram):
        both = [one + other for one, other in zip(left.counts, right.counts, strict=True)]
        return Histogram(bounds=left.bounds, counts=both, total=left.total + right.total)
    if isinstance(left, dict):
        return {name: left.get(name, 0) + right.get(name, 0) for name in (*left, *right)}
    return left + right


class Pace:
    """Tokens a second while the device works, lately: what is older than some seconds of work counts little."""

    def __init__(self, memory_seconds: float = 10.0) -> None:
        """An empty one; what is ``memory_seconds`` of work back counts a third."""
        self._memory = memory_seconds
        self._tokens = 0.0
        self._seconds = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        """Count a batch."""
        kept = math.exp(-seconds / self._memory)
        self._tokens = self._tokens * kept + tokens
        self._seconds = self._seconds * kept + seconds

    @property
    def rate(self) -> float:
        """Tokens a second; 0 before the first batch."""
        return self._tokens / self._seconds if self._seconds > 0 else 0.0

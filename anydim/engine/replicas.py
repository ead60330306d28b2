"""Replicas: several engines as one, each submission at the one that has least to do. Imports no torch.

It knows the lines to the engines; it knows no processes, no HTTP and no text. Admission, fair shares, equal texts and
the cache are each engine's own. docs/parallel.md says what that means for a server.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np

from anydim.engine.client import EngineClient
from anydim.engine.handle import EngineFacts, EngineHandle, Health
from anydim.engine.metrics import EngineCounts, summed
from anydim.errors import Overloaded, Unavailable
from anydim.types import Item, Output

_SHORT: Final = 4  # a submission counts as short up to this part of a slice; a part of a large one must stay above it
_LARGEST_SLICE: Final = 8192  # of an engine that is told none, on a GPU
_PARTS: Final = 2  # a part of a submission has at least the tokens of half a batch


def as_one(lines: Sequence[EngineClient], slice_tokens: int | None = None) -> EngineHandle:
    """One handle for the lines to all engines; the line itself where there is one."""
    return lines[0] if len(lines) == 1 else Replicas(lines, slice_tokens)


class Replicas:
    """An EngineHandle over several engines that serve the same models."""

    def __init__(self, lines: Sequence[EngineClient], slice_tokens: int | None = None) -> None:
        """Use the lines to all engines, in the order of their devices; opening and closing them stays with the owner.

        Args:
            lines: one a engine.
            slice_tokens: the engines' ``--slice-tokens``, where it is set.
        """
        self._lines = tuple(lines)
        self._least_part = (slice_tokens or _LARGEST_SLICE) // _SHORT + 1

    async def run(self, items: Sequence[Item]) -> list[Output]:
        """See EngineHandle. What is lost with an engine is sent to another one, once."""
        parts = self._cut(items) if items else []
        if len(parts) < 2:
            return await self._run_part(items) if items else []
        tasks = [asyncio.ensure_future(self._run_part(part)) for part in parts]
        try:
            return [output for outputs in await asyncio.gather(*tasks) for output in outputs]
        finally:
            while tasks:  # one refused part refuses the request: the others are not wanted any more
                tasks.pop().cancel()  # nor held: an error holds this frame, and would be held by it

    def health(self) -> Health:
        """See EngineHandle."""
        states = [line.health() for line in self._lines]
        lacking = [(place, state.reason) for place, state in enumerate(states) if not state.ready]
        reasons = "; ".join(f"engine {place}: {reason}" for place, reason in lacking)
        words = f"{len(lacking)} of {len(states)} engines take no requests ({reasons})" if lacking else ""
        return Health(any(state.alive for state in states), any(state.ready for state in states), words)

    def counts(self) -> EngineCounts | None:
        """See EngineHandle: the sums over all engines that run."""
        found = [counts for line in self._lines if (counts := line.counts()) is not None]
        return summed(found) if found else None

    def facts(self) -> EngineFacts | None:
        """See EngineHandle: those of the first engine that has told."""
        return next((facts for line in self._lines if (facts := line.facts()) is not None), None)

    def engines(self) -> Sequence[EngineHandle]:
        """See EngineHandle."""
        return self._lines

    async def _run_part(self, items: Sequence[Item]) -> list[Output]:
        """At the engine with the least to do; at the next one where it is full, or ends before it has answered."""
        left = list(self._lines)
        refused: Overloaded | None = None
        lost: Unavailable | None = None
        while (line := self._least(left, items)) is not None:
            left.remove(line)
            try:
                return await line.run(items)
            except Overloaded as error:
                refused = error if refused is None or error.retry_after < refused.retry_after else refused
            except Unavailable as error:
                if lost is not None:  # what ends two engines shall not end all
                    raise
                lost = error
        try:
            raise refused or lost or Unavailable(f"no engine at the moment: {self.health().reason}")
        finally:
            del refused, lost  # an error holds this frame

    def _least(self, lines: Sequence[EngineClient], items: Sequence[Item]) -> EngineClient | None:
        """The line with the least load; of equal ones the same for the same text, whose vector it may have kept."""
        ready = [(line.load, line) for line in lines if line.health().ready]
        if not ready:
            return None
        least = min(load for load, _ in ready)
        equal = [line for load, line in ready if load == least]
        return equal[0] if len(equal) == 1 else equal[zlib.crc32(items[0].ids.tobytes()) % len(equal)]

    def _cut(self, items: Sequence[Item]) -> list[Sequence[Item]]:
        """Parts of about equal size, at most one an engine, each of half a batch at least, in order."""
        facts, ready = self.facts(), sum(line.health().ready for line in self._lines)
        if facts is None or ready < 2 or len(items) < 2:
            return [items]
        ends = np.cumsum([len(item.ids) for item in items])
        count = min(ready, int(ends[-1]) // max(self._least_part, facts.batch_tokens // _PARTS))
        if count < 2:
            return [items]
        wanted = np.arange(1, count) * (int(ends[-1]) / count)
        places = [0, *(np.searchsorted(ends, wanted) + 1).tolist(), len(items)]
        return [items[start:end] for start, end in pairwise(places) if start < end]

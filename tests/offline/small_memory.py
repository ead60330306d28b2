"""A device whose memory holds texts of few tokens, as the engine measures it, for jobs that meet longer ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import anydim.engine.load
from anydim.engine.memory import Meter

LONGEST = 95
_TOKEN_BYTES = 1024


class SmallMemory:
    """A Meter of a device on which each token of a forward takes one KiB, and a hundred of them fit."""

    allowed = 100 * _TOKEN_BYTES
    taken = 0

    def room(self) -> int:
        """See Meter."""
        return self.allowed

    def peak(self, work: Callable[[], None]) -> int:
        """See Meter; ``work`` is a probe with its tokens bound to it."""
        work()
        return _TOKEN_BYTES * int(work.args[0])  # type: ignore[attr-defined]


@contextmanager
def small_memory() -> Iterator[None]:
    """Engines that are loaded meanwhile are on such a device, which is the CPU otherwise."""

    def meter(device: object, fraction: float) -> Meter:
        return SmallMemory()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anydim.engine.load, "meter_of", meter)
        yield

"""Arithmetic on spans of time: what is covered, what is not, and where one group ends and the next begins.

Not a script. It knows pairs of numbers (begin, end) in any unit, and nothing of what they time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

Span = tuple[float, float]


def merged(spans: Iterable[Span]) -> list[Span]:
    """The union as spans that neither overlap nor touch, in order."""
    union: list[Span] = []
    for begin, end in sorted(spans):
        if union and begin <= union[-1][1]:
            union[-1] = (union[-1][0], max(union[-1][1], end))
        else:
            union.append((begin, end))
    return union


def window_of(spans: Sequence[Span]) -> float:
    """The time from the first begin to the last end; 0 without spans."""
    return max(end for _, end in spans) - min(begin for begin, _ in spans) if spans else 0.0


def covered(spans: Iterable[Span]) -> float:
    """The time that at least one span covers."""
    return sum(end - begin for begin, end in merged(spans))


def idle_share(spans: Sequence[Span]) -> float:
    """The part of the time between the first begin and the last end that no span covers, from 0 to 1."""
    window = window_of(spans)
    return 1 - covered(spans) / window if window else 0.0


def gaps(spans: Iterable[Span]) -> list[Span]:
    """The stretches between the first begin and the last end that no span covers, in order."""
    union = merged(spans)
    return [(before[1], after[0]) for before, after in itertools.pairwise(union)]


def groups(spans: Iterable[Span], pause: float) -> list[Span]:
    """Spans joined wherever less than ``pause`` lies between them: one window a group."""
    joined: list[Span] = []
    for begin, end in merged(spans):
        if joined and begin - joined[-1][1] < pause:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    return joined

"""Idle shares and gaps, against a clock of whole ticks that marks each tick as busy or not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import intervals

spans = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda pair: (float(pair[0]), float(sum(pair)))),
    min_size=1,
    max_size=30,
)


def ticks(found: list[tuple[float, float]]) -> np.ndarray:
    """Whether each tick of 80 is covered."""
    busy = np.zeros(80, bool)
    for begin, end in found:
        busy[int(begin) : int(end)] = True
    return busy


@given(spans)
def test_covered_idle_and_gaps_are_those_of_a_clock_that_counts_ticks(found: list[tuple[float, float]]) -> None:
    busy = ticks(found)
    window = np.flatnonzero(busy)[-1] - np.flatnonzero(busy)[0] + 1
    assert intervals.covered(found) == busy.sum()
    assert intervals.window_of(found) == window
    assert intervals.idle_share(found) == pytest.approx(1 - busy.sum() / window)
    assert sum(end - begin for begin, end in intervals.gaps(found)) == window - busy.sum()
    assert not busy[ticks(intervals.gaps(found))].any()


@given(spans, st.integers(1, 15))
def test_groups_cover_every_span_and_lie_a_pause_apart(found: list[tuple[float, float]], pause: int) -> None:
    groups = intervals.groups(found, pause)
    assert all(any(begin <= one and other <= end for begin, end in groups) for one, other in found)
    assert all(after[0] - before[1] >= pause for before, after in itertools.pairwise(groups))
    assert all(gap[1] - gap[0] < pause for gap in intervals.gaps(found) if any(a <= gap[0] < b for a, b in groups))


def test_kernels_that_overlap_count_once() -> None:
    assert intervals.idle_share([(0, 4), (2, 6), (3, 5), (8, 10)]) == pytest.approx(0.2)


def test_nothing_is_idle_where_nothing_ran() -> None:
    assert intervals.idle_share([]) == 0
    assert intervals.gaps([]) == intervals.groups([], 1) == []

"""Intervals: how far a measured figure can be trusted, by the bootstrap.

Every setting is measured on the same resamples, so that what is common to all of them, such as a hard query that was
drawn twice, cancels out of a ratio. Source: Efron and Tibshirani, An Introduction to the Bootstrap, the percentile
interval. It knows numbers, no tasks.

Legend: R resamples, U units that are drawn: queries, pairs or documents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Float64Array = NDArray[np.float64]

RESAMPLES: Final = 1000
_SURE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and where it lies in 95 of 100 cases."""

    value: float
    low: float
    high: float

    def words(self, scale: float = 1.0, digits: int = 3) -> str:
        """Such as ``0.981 [0.972, 0.990]``."""
        value, low, high = (f"{scale * number:.{digits}f}" for number in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"


def draws(units: int, count: int = RESAMPLES, seed: int = 0) -> NDArray[Any]:
    """How often each unit is drawn in each resample: int64 (R, U), rows add up to U."""
    return np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), count)


def means(values_U: Float64Array, draws_RU: NDArray[Any]) -> Float64Array:
    """The mean of each resample: float64 (R,)."""
    found_R: Float64Array = (draws_RU @ values_U) / len(values_U)
    return found_R


def ratio(value: float, full: float, value_R: Float64Array, full_R: Float64Array) -> Interval:
    """A figure as a share of the full one; resamples in which the full one is nothing count as nothing kept."""
    parts_R = np.divide(value_R, full_R, out=np.zeros_like(value_R), where=full_R != 0)
    return _interval(value / full if full else 1.0, parts_R)


def difference(value: float, other: float, value_R: Float64Array, other_R: Float64Array) -> Interval:
    """How much more a figure is than another."""
    return _interval(value - other, value_R - other_R)


def _interval(value: float, found_R: Float64Array) -> Interval:
    low, high = np.quantile(found_R, [(1 - _SURE) / 2, (1 + _SURE) / 2])
    return Interval(float(value), float(low), float(high))

"""Outcome: what a task says of one form, and what every task must do. It knows numbers only.

Legend: R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from anydim.quality.forms import Form
from anydim.quality.intervals import Float64Array

Told = Callable[[float], None]
"""Called with the share of the work that is done, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a form is worth to a task.

    Attributes:
        metric: the decisive one.
        metrics: each by name, between 0 and 1.
        resampled_R: the decisive one on each resample, the same resamples for every form.
    """

    metric: str
    metrics: Mapping[str, float]
    resampled_R: Float64Array

    @property
    def value(self) -> float:
        """The decisive metric."""
        return self.metrics[self.metric]


class Task(Protocol):
    """What a user wants of vectors, on data of their own."""

    @property
    def units(self) -> str:
        """How much evidence there is, in words."""
        ...

    @property
    def count(self) -> int:
        """The same as a number."""
        ...

    def measure(self, form: Form) -> Outcome:
        """What a form is worth."""
        ...

    def measure_each(self, forms: Sequence[Form], told: Told) -> list[Outcome]:
        """What each of several forms is worth, which differ in their dimension alone and grow; ``told`` hears the
        share that is done.
        """
        ...


def one_by_one(measure: Callable[[Form], Outcome], forms: Sequence[Form], told: Told) -> list[Outcome]:
    """``measure_each`` of a task that gains nothing by measuring several forms together."""
    found = []
    for form in forms:
        found.append(measure(form))
        told(len(found) / len(forms))
    return found

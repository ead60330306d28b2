"""Outcome: what a task says of one form, and what every task must do. It knows numbers only.

Legend: R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from anydim.quality.forms import Form
from anydim.quality.intervals import Float64Array


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

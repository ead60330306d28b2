"""Pairs: how well cosines follow the scores that people gave to pairs of texts, by Spearman's correlation of ranks.

It knows rows and scores; it knows no model.

Legend: P pairs, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from anydim.errors import InvalidRequest
from anydim.quality.extra import need
from anydim.quality.forms import Form, Rows, in_form
from anydim.quality.intervals import Float64Array
from anydim.quality.outcome import Outcome, Told, one_by_one

_RESAMPLES: Final = 500  # each is ranked anew
_LEAST: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """The task: order pairs as people do.

    Attributes:
        first: rows of the first texts.
        second: rows of the second ones.
        scores_P: what people said of each pair; higher is more alike.
    """

    first: Rows
    second: Rows
    scores_P: Float64Array

    def __post_init__(self) -> None:
        if len(self.scores_P) < _LEAST or len(np.unique(self.scores_P)) < 2:
            raise InvalidRequest(f"pairs need at least {_LEAST} scores, and not all of them the same", "scores")

    @property
    def units(self) -> str:
        """How much evidence there is, in words."""
        return f"{len(self.scores_P):,} pairs"

    @property
    def count(self) -> int:
        """The same as a number."""
        return len(self.scores_P)

    def cosines(self, form: Form) -> Float64Array:
        """Of each pair, float64 (P,)."""
        first_Pd = in_form(self.first.for_form(form), form)
        second_Pd = in_form(self.second.for_form(form), form)
        found_P: Float64Array = (first_Pd * second_Pd).sum(dim=1).double().numpy()
        return found_P

    def measure(self, form: Form) -> Outcome:
        """What a form is worth."""
        cosines_P = self.cosines(form)
        value = float(need("scipy.stats").spearmanr(cosines_P, self.scores_P).statistic)
        drawn_RP = np.random.default_rng(0).integers(self.count, size=(_RESAMPLES, self.count))
        return Outcome("spearman", {"spearman": value}, _spearman(cosines_P[drawn_RP], self.scores_P[drawn_RP]))

    def measure_each(self, forms: Sequence[Form], told: Told) -> list[Outcome]:
        """What each of several forms is worth."""
        return one_by_one(self.measure, forms, told)


def _spearman(first_RP: NDArray[Any], second_RP: NDArray[Any]) -> Float64Array:
    """Spearman's correlation of each row: Pearson's of the ranks; 0 where all are the same."""
    rank = need("scipy.stats").rankdata
    parts = []
    for values_RP in (first_RP, second_RP):
        ranks_RP = rank(values_RP, axis=1)
        ranks_RP -= ranks_RP.mean(axis=1, keepdims=True)
        parts.append(ranks_RP / np.maximum(np.linalg.norm(ranks_RP, axis=1, keepdims=True), 1e-12))
    found_R: Float64Array = (parts[0] * parts[1]).sum(axis=1)
    return found_R

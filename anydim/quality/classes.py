"""Classes: how well labels can be learned from vectors, and how well clusters follow labels, through scikit-learn.

Source: MTEB's tasks of the same names: logistic regression, here cross-validated, and mini-batch k-means with as many
clusters as there are labels, judged by V-measure. It knows rows and labels; it knows no model.

Legend: N documents, L labels, C clusters, R resamples.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from anydim.errors import InvalidRequest
from anydim.quality.extra import need
from anydim.quality.forms import Form, Rows, in_form
from anydim.quality.intervals import RESAMPLES, Float64Array, draws, means
from anydim.quality.outcome import Outcome, Told, one_by_one

_FOLDS: Final = 5
_ROUNDS: Final = 200  # of the regression's solver; vectors of length one need few
_SEED: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Labelled:
    """Documents with a label each.

    Attributes:
        documents: their rows.
        labels_N: the label of each, as a number.
    """

    documents: Rows
    labels_N: NDArray[Any]

    @property
    def units(self) -> str:
        """How much evidence there is, in words."""
        return f"{len(self.labels_N):,} documents of {len(np.unique(self.labels_N))} labels"

    @property
    def count(self) -> int:
        """The evidence as a number."""
        return len(self.labels_N)


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification(_Labelled):
    """The task: tell labels apart by a logistic regression, each document judged by one that did not see it."""

    def __post_init__(self) -> None:
        rarest = min(Counter(self.labels_N.tolist()).values())
        if len(set(self.labels_N.tolist())) < 2 or rarest < _FOLDS:
            raise InvalidRequest(f"classification needs two labels or more, each on {_FOLDS} rows or more", "label")

    def measure(self, form: Form) -> Outcome:
        """What a form is worth."""
        rows_Nd = in_form(self.documents.for_form(form), form).numpy()
        selection, linear = need("sklearn.model_selection"), need("sklearn.linear_model")
        folds = selection.StratifiedKFold(_FOLDS, shuffle=True, random_state=_SEED)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a regression that has not settled yet is good enough to compare
            regression = linear.LogisticRegression(max_iter=_ROUNDS)
            told_N = selection.cross_val_predict(regression, rows_Nd, self.labels_N, cv=folds)
        right_N = (told_N == self.labels_N).astype(np.float64)
        macro = float(need("sklearn.metrics").f1_score(self.labels_N, told_N, average="macro"))
        metrics = {"accuracy": float(right_N.mean()), "macro_f1": macro}
        return Outcome("accuracy", metrics, means(right_N, draws(self.count)))

    def measure_each(self, forms: Sequence[Form], told: Told) -> list[Outcome]:
        """What each of several forms is worth."""
        return one_by_one(self.measure, forms, told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clustering(_Labelled):
    """The task: put documents of one label into one cluster without knowing labels."""

    def __post_init__(self) -> None:
        if len(set(self.labels_N.tolist())) < 2:
            raise InvalidRequest("clustering needs two labels or more", "label")

    def measure(self, form: Form) -> Outcome:
        """What a form is worth."""
        rows_Nd = in_form(self.documents.for_form(form), form).numpy()
        kinds = len(np.unique(self.labels_N))
        clusters = need("sklearn.cluster").MiniBatchKMeans(kinds, random_state=_SEED, batch_size=1024, n_init=3)
        told_N = clusters.fit_predict(rows_Nd)
        metrics = need("sklearn.metrics")
        value = float(metrics.v_measure_score(self.labels_N, told_N))
        table_LC = metrics.cluster.contingency_matrix(self.labels_N, told_N)
        return Outcome("v_measure", {"v_measure": value}, _resampled(table_LC))

    def measure_each(self, forms: Sequence[Form], told: Told) -> list[Outcome]:
        """What each of several forms is worth."""
        return one_by_one(self.measure, forms, told)


def numbered(labels: Sequence[Any]) -> NDArray[Any]:
    """Labels as numbers: int64 (N,)."""
    _, places_N = np.unique(np.array([str(label) for label in labels]), return_inverse=True)
    return places_N


def _resampled(table_LC: NDArray[Any]) -> Float64Array:
    """V-measure of resampled documents: only how many fall in each cell matters, so cells are drawn."""
    shares = table_LC.ravel() / table_LC.sum()
    drawn = np.random.default_rng(_SEED).multinomial(table_LC.sum(), shares, RESAMPLES)
    tables_RLC = drawn.reshape(-1, *table_LC.shape) / table_LC.sum()
    labels_R, clusters_R = _entropy(tables_RLC.sum(axis=2)), _entropy(tables_RLC.sum(axis=1))
    shared_R = labels_R + clusters_R - _entropy(tables_RLC.reshape(len(drawn), -1))
    found_R: Float64Array = 2 * shared_R / np.maximum(labels_R + clusters_R, 1e-12)
    return found_R


def _entropy(shares: NDArray[Any]) -> Float64Array:
    """Of each row of shares, in nats."""
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    found: Float64Array = -(shares * logs).sum(axis=1)
    return found

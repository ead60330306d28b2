"""Fit: choose a rotation for a corpus, and say on documents that it did not see whether it is worth having.

A fifth of the documents is held back. Of the others a fifth chooses among the ways of fitting; the chosen one is fitted
on all of them, and the documents held back are measured truncated and fitted. It knows rows and labels; it knows no
model and no file.

Legend: N documents, Q queries, R resamples, D full dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anydim.errors import ConfigError
from anydim.quality.forms import Form, Rows
from anydim.quality.intervals import Interval, difference, means
from anydim.quality.ranking import Labels, Ranking, sampled
from anydim.quality.rotations import METHODS, Progress
from anydim.types import OutputDtype

AUTO: Final = "auto"

_HELD_BACK: Final = 5  # one in so many
_LEAST: Final = 50  # documents
_MOST_HELD: Final = 10_000
_QUERIES: Final = 1000  # documents that ask, where there are no queries
_FEW_QUERIES: Final = 100
_FEW: Final = (32, 64, 128)  # components by which a way of fitting is chosen
_DECISIVE: Final = 4  # dimensions up to a quarter of the width decide


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """Queries with labels.

    Attributes:
        queries_QD: full rows.
        labels: of each query, by places of documents.
    """

    queries_QD: Tensor
    labels: Sequence[Labels]

    def renumbered(self, places_N: NDArray[Any]) -> Questions:
        """The same for some of the documents alone."""
        return Questions(queries_QD=self.queries_QD, labels=self._kept(places_N))

    def among(self, places_N: NDArray[Any], rotation_DD: Tensor | None, documents: Rows, k: int) -> Ranking | None:
        """The task on some of the documents; None where no query asks for any of these."""
        kept = self._kept(places_N)
        asked = [query for query, known in enumerate(kept) if known]
        if not asked:
            return None
        queries = Rows(self.queries_QD[torch.tensor(asked)], rotation_DD)
        return Ranking(queries=queries, documents=documents, labels=[kept[query] for query in asked], k=k)

    def _kept(self, places_N: NDArray[Any]) -> list[dict[int, int]]:
        new = {int(old): place for place, old in enumerate(places_N)}
        return [{new[place]: gain for place, gain in known.items() if place in new} for known in self.labels]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One dimension on documents that the fit did not see.

    Attributes:
        dim: components.
        truncated: the metric without a rotation.
        fitted: the metric with it.
        gain: the difference.
    """

    dim: int
    truncated: float
    fitted: float
    gain: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A rotation and what is known of it.

    Attributes:
        rotation_DD: float32 (D, D).
        method: how it was fitted.
        documents: that it was fitted on.
        held_back: documents that it was measured on.
        queries: that it was measured with.
        metric: such as ``ndcg_at_10``.
        rows: dimension by dimension.
        chosen_by: method -> mean of the metric at few components, on documents that it was not fitted on.
    """

    rotation_DD: Tensor
    method: str
    documents: int
    held_back: int
    queries: int
    metric: str
    rows: Sequence[Comparison]
    chosen_by: Mapping[str, float]

    @property
    def is_worth_it(self) -> bool:
        """Whether it surely gains at one of the few components that decide, and surely loses at none of them."""
        decisive = self._decisive()
        gains, loses = any(row.gain.low > 0 for row in decisive), any(row.gain.high < 0 for row in decisive)
        return self.queries >= _FEW_QUERIES and gains and not loses

    @property
    def advice(self) -> str:
        """What to do with it, in a sentence or two."""
        width = len(self.rotation_DD)
        few = f"It was fitted on {self.documents:,} documents for {width} components. " if self._is_thin() else ""
        if self.queries < _FEW_QUERIES:
            return f"{few}{self.queries} queries are too few to tell whether it helps: do not use it yet."
        if not self.is_worth_it:
            return f"{few}It does not help here: do not use it; cut vectors as they are."
        better = [row.dim for row in self.rows if row.gain.low > 0]
        worse = [row.dim for row in self.rows if row.gain.high < 0]
        lost = f" It loses at {_listed(worse)}." if worse else ""
        return f"{few}Use it: it gains at {_listed(better)} components.{lost}"

    def _decisive(self) -> list[Comparison]:
        return [row for row in self.rows if row.dim <= len(self.rotation_DD) // _DECISIVE] or list(self.rows)

    def _is_thin(self) -> bool:
        return self.documents < 2 * len(self.rotation_DD)


def fit(
    documents_ND: Tensor,
    dims: Sequence[int],
    *,
    questions: Questions | None = None,
    method: str = AUTO,
    k: int = 10,
    seed: int = 0,
    progress: Progress = lambda *_: None,
) -> Fitted:
    """Fit a rotation.

    Args:
        documents_ND: full rows; the mean of what is served.
        dims: dimensions to measure.
        questions: queries with labels; without them the neighbours by full vectors are what is to be found.
        method: a name in ``METHODS``, or auto to choose.
        k: how many documents a user looks at.
        seed: of the split.
        progress: told what is being done.

    Raises:
        ConfigError: there are too few documents, or the method is unknown.
    """
    if len(documents_ND) < _LEAST:
        raise ConfigError(f"a fit needs at least {_LEAST} documents, got {len(documents_ND)}")
    seen_N, held_N = _split(np.arange(len(documents_ND)), seed)
    seen_ND = documents_ND[_tensor(seen_N)]
    chosen, rotation_DD, scores = choose_and_fit(
        seen_ND, method, questions=questions and questions.renumbered(seen_N), k=k, seed=seed, progress=progress
    )
    task = _task(documents_ND, held_N, rotation_DD, questions, k)
    progress("measuring", 0, len(dims))
    return Fitted(
        rotation_DD=rotation_DD,
        method=chosen,
        documents=len(seen_N),
        held_back=len(held_N),
        queries=task.count,
        metric=f"{task.metric}_at_{task.k}",
        rows=_compared(task, dims, progress),
        chosen_by=scores,
    )


def choose_and_fit(
    documents_ND: Tensor,
    method: str,
    *,
    questions: Questions | None = None,
    k: int = 10,
    seed: int = 0,
    progress: Progress = lambda *_: None,
) -> tuple[str, Tensor, dict[str, float]]:
    """Fit on all of these documents, by the way that does best at few components on a fifth of them.

    Returns:
        The method, the rotation (D, D), and method -> mean of the metric by which it was chosen, empty where there
        was no choice.

    Raises:
        ConfigError: the method is unknown.
    """
    if method not in (AUTO, *METHODS):
        raise ConfigError(f"--method must be one of {', '.join((AUTO, *METHODS))}, got {method!r}")
    scores: dict[str, float] = {}
    if method == AUTO:
        inner_N, outer_N = _split(np.arange(len(documents_ND)), seed + 1)
        inner_ND = documents_ND[_tensor(inner_N)]
        for name, rotate in METHODS.items():
            task = _task(documents_ND, outer_N, rotate(inner_ND, progress), questions, k)
            scores[name] = _worth(task, documents_ND.shape[1])
        method = max(scores, key=lambda name: scores[name])
    return method, METHODS[method](documents_ND, progress), scores


def _worth(task: Ranking, width: int) -> float:
    """The mean of the metric at few components."""
    few = [dim for dim in _FEW if dim < width] or [width]
    return sum(task.measure(Form(dim, OutputDtype.FLOAT32, fitted=True)).value for dim in few) / len(few)


def _task(
    documents_ND: Tensor, places_N: NDArray[Any], rotation_DD: Tensor, questions: Questions | None, k: int
) -> Ranking:
    """What is measured on some of the documents."""
    documents = Rows(documents_ND[_tensor(places_N)], rotation_DD)
    labelled = questions.among(places_N, rotation_DD, documents, k) if questions is not None else None
    return labelled or sampled(documents, k, _QUERIES)


def _compared(task: Ranking, dims: Sequence[int], progress: Progress) -> list[Comparison]:
    rows = []
    for place, dim in enumerate(dims, 1):
        plain_Q, fitted_Q = (
            task.per_query(Form(dim, OutputDtype.FLOAT32, fitted))[task.metric] for fitted in (False, True)
        )
        gain = difference(
            fitted_Q.mean(), plain_Q.mean(), means(fitted_Q, task.draws_RQ), means(plain_Q, task.draws_RQ)
        )
        rows.append(Comparison(dim, float(plain_Q.mean()), float(fitted_Q.mean()), gain))
        progress("measuring", place, len(dims))
    return rows


def _split(places_N: NDArray[Any], seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Places to fit on, and places held back, each in order."""
    mixed_N = np.random.default_rng(seed).permutation(places_N)
    held = min(max(len(mixed_N) // _HELD_BACK, 1), _MOST_HELD)
    return np.sort(mixed_N[held:]), np.sort(mixed_N[:held])


def _tensor(places_N: NDArray[Any]) -> Tensor:
    return torch.from_numpy(places_N)


def _listed(dims: Sequence[int]) -> str:
    return ", ".join(map(str, dims[:-1])) + (" and " if len(dims) > 1 else "") + str(dims[-1])

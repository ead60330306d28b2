"""Evidence: from a user's rows to a task that is fair to fitted forms.

A rotation that is fitted on the user's own documents is judged on others: half of the rows are for the fit, the other
half is what every form is measured on, truncated ones too. It knows rows, labels and tasks; it knows no files.

Legend: N rows, P pairs, Q queries, D full dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anydim.errors import InvalidRequest
from anydim.quality.classes import Classification, Clustering, numbered
from anydim.quality.fit import AUTO, Questions, choose_and_fit
from anydim.quality.forms import Rows
from anydim.quality.outcome import Task
from anydim.quality.pairs import Pairs
from anydim.quality.ranking import Ranking, agreement, sampled
from anydim.quality.rotations import Progress

LEAST: Final = 200
"""Rows that are worth a split."""

_MOST_FITTED: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """How fitted forms come by their rotation.

    Attributes:
        wanted: whether there are fitted forms at all.
        rotation_DD: a rotation from elsewhere, which needs no split; None to fit one.
        progress: told how a fit goes.
    """

    wanted: bool = True
    rotation_DD: Tensor | None = None
    progress: Progress = lambda *_: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Which rows are measured, and the rotation of fitted forms.

    Attributes:
        measured_N: places of rows, in order.
        rotation_DD: None where there are no fitted forms.
        fitted_on: rows that the rotation was fitted on; 0 where it comes from elsewhere.
    """

    measured_N: NDArray[Any]
    rotation_DD: Tensor | None
    fitted_on: int


def split(rows_ND: Tensor, turn: Turn, seed: int = 0) -> Split:
    """All rows where nothing is fitted on them, else half of them; too few rows are not worth a fit."""
    count = len(rows_ND)
    if not turn.wanted or turn.rotation_DD is not None or count < LEAST:
        return Split(measured_N=np.arange(count), rotation_DD=turn.rotation_DD if turn.wanted else None, fitted_on=0)
    mixed_N = np.random.default_rng(seed).permutation(count)
    fitted = min(count // 2, _MOST_FITTED)
    seen_ND = rows_ND[torch.from_numpy(np.sort(mixed_N[:fitted]))]
    _, rotation_DD, _ = choose_and_fit(seen_ND, AUTO, progress=turn.progress)
    return Split(measured_N=np.sort(mixed_N[fitted:]), rotation_DD=rotation_DD, fitted_on=fitted)


def retrieval(
    documents_ND: Tensor,
    queries_QD: Tensor | None,
    labels: Sequence[dict[int, int]] | None,
    turn: Turn,
    k: int,
    most_queries: int,
) -> tuple[Task, Split]:
    """Find what labels name, or what full vectors find.

    Args:
        documents_ND: full rows.
        queries_QD: full rows; without them ``most_queries`` documents ask for their neighbours.
        labels: of each query.
        turn: how fitted forms come by their rotation.
        k: how many documents a user looks at.
        most_queries: documents that ask.

    Raises:
        InvalidRequest: no label names a document that is measured.
    """
    parts = split(documents_ND, turn)
    documents = Rows(_part(documents_ND, parts.measured_N), parts.rotation_DD)
    if queries_QD is None:
        return sampled(documents, k, most_queries), parts
    if labels is None:
        return agreement(Rows(queries_QD, parts.rotation_DD), documents, k), parts
    found: Ranking | None = Questions(queries_QD=queries_QD, labels=labels).among(
        parts.measured_N, parts.rotation_DD, documents, k
    )
    if found is None:
        raise InvalidRequest("no label names a document of the half that is measured; try --no-fitted", "qrels")
    return found, parts


def pairs(first_ND: Tensor, second_ND: Tensor, scores_N: NDArray[Any], turn: Turn) -> tuple[Task, Split]:
    """Order pairs as people do; a fit sees the texts of other pairs."""
    parts = split(first_ND, turn)
    chosen_N = torch.from_numpy(parts.measured_N)
    task = Pairs(
        first=Rows(first_ND[chosen_N], parts.rotation_DD),
        second=Rows(second_ND[chosen_N], parts.rotation_DD),
        scores_P=scores_N[parts.measured_N].astype(np.float64),
    )
    return task, parts


def classes(documents_ND: Tensor, labels: Sequence[Any], turn: Turn, clusters: bool) -> tuple[Task, Split]:
    """Tell labels apart, or put documents of one label into one cluster."""
    parts = split(documents_ND, turn)
    documents = Rows(_part(documents_ND, parts.measured_N), parts.rotation_DD)
    kept_N = numbered(labels)[parts.measured_N]
    return (Clustering if clusters else Classification)(documents=documents, labels_N=kept_N), parts


def _part(rows_ND: Tensor, places_N: NDArray[Any]) -> Tensor:
    """Some rows; all of them as they are, so that a file stays mapped."""
    return rows_ND if len(places_N) == len(rows_ND) else rows_ND[torch.from_numpy(places_N)]

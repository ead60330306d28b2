"""Ranking: how well the right documents are found, by the measures of the retrieval field (trec_eval).

Right are the documents that labels name, or, where there are none, those that full float32 vectors find. It knows rows
and labels; it knows no model.

Legend: Q queries, N documents, D full dimension, K neighbours, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anydim.quality.extra import need
from anydim.quality.forms import Form, Rows
from anydim.quality.intervals import Float64Array, draws, means
from anydim.quality.nearest import nearest, nearest_each
from anydim.quality.outcome import Outcome, Told
from anydim.types import OutputDtype

Labels = Mapping[int, int]
"""Place of a document -> how relevant it is; what is not named is not relevant."""

_BY: Final = {"recall": "recall_{}", "ndcg": "ndcg_cut_{}"}.items()


def judged(places_QK: NDArray[Any], labels: Sequence[Labels], k: int) -> dict[str, Float64Array]:
    """Recall and nDCG of each query over its first ``k`` documents, float64 (Q,), by ``recall`` and ``ndcg``.

    Source: trec_eval's recall and ndcg_cut through pytrec_eval: the gain is the label itself.

    Raises:
        MissingExtra: pytrec_eval is not installed.
    """
    evaluator = need("pytrec_eval").RelevanceEvaluator(
        {str(query): {str(place): int(rank) for place, rank in known.items()} for query, known in enumerate(labels)},
        {f"recall.{k}", f"ndcg_cut.{k}"},
    )
    # Scores fall with the rank: equal ones would be put in the order of names.
    run = {
        str(query): {str(place): float(-rank) for rank, place in enumerate(found[:k])}
        for query, found in enumerate(places_QK.tolist())
    }
    results = evaluator.evaluate(run)
    return {
        name: np.array([results[str(query)][measure.format(k)] for query in range(len(labels))])
        for name, measure in _BY
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The task: find the right documents.

    Attributes:
        queries: their rows.
        documents: their rows.
        labels: the right documents of each query.
        k: how many documents a user looks at.
        own_Q: places of queries that are documents themselves; None where they are not.
        metric: which measure is decisive: ``ndcg``, or ``recall`` for agreement with full vectors.
    """

    queries: Rows
    documents: Rows
    labels: Sequence[Labels]
    k: int = 10
    own_Q: Tensor | None = None
    metric: str = "ndcg"
    draws_RQ: NDArray[Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "draws_RQ", draws(len(self.labels)))

    @property
    def units(self) -> str:
        """How much evidence there is, in words."""
        return f"{len(self.labels):,} queries"

    @property
    def count(self) -> int:
        """The same as a number."""
        return len(self.labels)

    def per_query(self, form: Form) -> dict[str, Float64Array]:
        """Recall and nDCG of each query, float64 (Q,)."""
        queries_QD, documents_ND = self.queries.for_form(form), self.documents.for_form(form)
        return judged(nearest(queries_QD, documents_ND, form, self.k, self.own_Q).numpy(), self.labels, self.k)

    def measure(self, form: Form) -> Outcome:
        """What a form is worth."""
        return self._outcome(self.per_query(form))

    def measure_each(self, forms: Sequence[Form], told: Told) -> list[Outcome]:
        """What each of several forms is worth: one sweep over the documents for all of them."""
        queries_QD, documents_ND = self.queries.for_form(forms[0]), self.documents.for_form(forms[0])
        found = nearest_each(queries_QD, documents_ND, forms, self.k, self.own_Q, told)
        return [self._outcome(judged(places_QK.numpy(), self.labels, self.k)) for places_QK in found]

    def _outcome(self, found: Mapping[str, Float64Array]) -> Outcome:
        metrics = {f"{name}_at_{self.k}": float(values_Q.mean()) for name, values_Q in found.items()}
        return Outcome(f"{self.metric}_at_{self.k}", metrics, means(found[self.metric], self.draws_RQ))


def agreement(queries: Rows, documents: Rows, k: int, own_Q: Tensor | None = None) -> Ranking:
    """The task without labels: find what full float32 vectors find."""
    whole = Form(documents.plain_ND.shape[1], OutputDtype.FLOAT32)
    found = nearest(queries.plain_ND, documents.plain_ND, whole, k, own_Q).tolist()
    labels = [dict.fromkeys(places, 1) for places in found]
    return Ranking(queries=queries, documents=documents, labels=labels, k=k, own_Q=own_Q, metric="recall")


def sampled(documents: Rows, k: int, most: int, seed: int = 0) -> Ranking:
    """``agreement`` for some of the documents as queries, drawn by seed."""
    count = min(most, len(documents))
    places_Q = np.sort(np.random.default_rng(seed).choice(len(documents), count, replace=False))
    own_Q = torch.from_numpy(places_Q)
    return agreement(documents[own_Q], documents, k, own_Q)

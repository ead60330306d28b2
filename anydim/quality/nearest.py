"""Nearest: the documents with the highest cosine for each query, exhaustively and in blocks, so that memory stays flat.

Forms of one output type that differ in their dimension are searched together: each block of documents is read once, and
its scores come dimension by dimension (scores.py). It knows rows and forms; what makes a neighbour right is said
elsewhere.

Legend: Q queries, N documents, D full dimension, K neighbours kept, M candidates of a merge, B documents of a block, G
groups of them, S documents of a group, R queries that are in a block themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from anydim.quality.forms import Form, blocks
from anydim.quality.outcome import Told
from anydim.quality.scores import scorer
from anydim.quality.workers import in_order

_BLOCK: Final = 4096  # documents; what is made of them stays in a processor's cache
_QUERIES: Final = 512
_GROUP: Final = 32  # scores of which only the best is looked at first


def nearest(queries_QD: Tensor, documents_ND: Tensor, form: Form, most: int, own_Q: Tensor | None = None) -> Tensor:
    """The best documents of each query in one form: ``nearest_each`` for it alone."""
    return nearest_each(queries_QD, documents_ND, [form], most, own_Q)[0]


def nearest_each(
    queries_QD: Tensor,
    documents_ND: Tensor,
    forms: Sequence[Form],
    most: int,
    own_Q: Tensor | None = None,
    told: Told = lambda share: None,
) -> list[Tensor]:
    """The best documents of each query in each form.

    Args:
        queries_QD: full rows, rotated where the forms are fitted.
        documents_ND: full rows, rotated where the forms are fitted; may be mapped from a file.
        forms: what is compared: one output type, growing dimensions.
        most: K, neighbours to keep.
        own_Q: int64, the query's own place among the documents, which does not count; -1 for none.
        told: hears how far the search is.

    Returns:
        For each form int64 (Q, K), places of documents, best first; K is less where there are fewer documents. Equal
        scores stand in no order that is promised.
    """
    parts = list(blocks(len(queries_QD), _QUERIES))
    found = []
    for before, part in enumerate(parts):

        def told_of_all(share: float, before: int = before) -> None:
            told((before + share) / len(parts))

        own = None if own_Q is None else own_Q[part]
        found.append(_nearest(queries_QD[part], documents_ND, forms, most, own, told_of_all))
    return [torch.cat(of_form) for of_form in zip(*found, strict=True)]


def _nearest(
    queries_QD: Tensor, documents_ND: Tensor, forms: Sequence[Form], most: int, own_Q: Tensor | None, told: Told
) -> list[Tensor]:
    score = scorer(queries_QD, forms)
    parts = list(blocks(len(documents_ND), _BLOCK))
    kept = [_Best(len(queries_QD), most) for _ in forms]

    def search(part: slice) -> list[tuple[Tensor, Tensor]]:
        found = []
        for scores_QB in score(documents_ND[part]):
            if own_Q is not None:
                _forbid(scores_QB, own_Q, part)
            scores_QK, where_QK = _top(scores_QB, most)
            found.append((scores_QK, where_QK + part.start))
        return found

    for part, found in zip(parts, in_order(search, parts), strict=True):
        for best, (scores_QK, places_QK) in zip(kept, found, strict=True):
            best.take(scores_QK, places_QK)
        told(part.stop / len(documents_ND))
    return [best.places_QK for best in kept]


class _Best:
    """The best documents so far, block by block."""

    def __init__(self, queries: int, most: int) -> None:
        self._most = most
        self._scores_QK = torch.empty((queries, 0))
        self.places_QK = torch.empty((queries, 0), dtype=torch.int64)

    def take(self, scores_QK: Tensor, places_QK: Tensor) -> None:
        """Add the best of a further block."""
        scores_QM = torch.cat([self._scores_QK, scores_QK], dim=1)
        places_QM = torch.cat([self.places_QK, places_QK], dim=1)
        self._scores_QK, order_QK = torch.topk(scores_QM, min(self._most, scores_QM.shape[1]), dim=1)
        self.places_QK = places_QM.gather(1, order_QK)


def _top(scores_QB: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The highest scores and where they are: those are in the groups whose own best are the highest."""
    queries, count = scores_QB.shape
    if count % _GROUP or count < 2 * most * _GROUP:
        return torch.topk(scores_QB, min(most, count), dim=1)
    grouped_QGS = scores_QB.view(queries, count // _GROUP, _GROUP)
    _, groups_QK = torch.topk(grouped_QGS.amax(dim=2), most, dim=1, sorted=False)
    kept_QM = grouped_QGS.gather(1, groups_QK[:, :, None].expand(-1, -1, _GROUP)).flatten(1)
    best_QK, order_QK = torch.topk(kept_QM, most, dim=1)
    return best_QK, groups_QK.gather(1, order_QK // _GROUP) * _GROUP + order_QK % _GROUP


def _forbid(scores_QB: Tensor, own_Q: Tensor, part: slice) -> None:
    """A document is no neighbour of itself."""
    rows_R = ((own_Q >= part.start) & (own_Q < part.stop)).nonzero()[:, 0]
    scores_QB[rows_R, own_Q[rows_R] - part.start] = -torch.inf

"""Nearest: the documents with the highest cosine for each query, exhaustively and in blocks, so that memory stays flat.

It knows rows and forms; what makes a neighbour right is said elsewhere.

Legend: Q queries, N documents, D full dimension, d dimension of a form, K neighbours kept, M candidates of a merge, B
documents of a block, R queries that are in it themselves.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from anydim.quality.forms import Form, blocks, in_form

_BLOCK: Final = 8192  # documents
_QUERIES: Final = 512


def nearest(queries_QD: Tensor, documents_ND: Tensor, form: Form, most: int, own_Q: Tensor | None = None) -> Tensor:
    """The best documents of each query.

    Args:
        queries_QD: full rows, rotated where the form is fitted.
        documents_ND: full rows, rotated where the form is fitted; may be mapped from a file.
        form: what is compared.
        most: K, neighbours to keep.
        own_Q: int64, the query's own place among the documents, which does not count; -1 for none.

    Returns:
        int64 (Q, K), places of documents, best first; K is less where there are fewer documents.
    """
    parts = [
        _nearest(in_form(queries_QD[part], form), documents_ND, form, most, None if own_Q is None else own_Q[part])
        for part in blocks(len(queries_QD), _QUERIES)
    ]
    return torch.cat(parts)


def _nearest(queries_Qd: Tensor, documents_ND: Tensor, form: Form, most: int, own_Q: Tensor | None) -> Tensor:
    scores_QK = queries_Qd.new_empty((len(queries_Qd), 0))
    places_QK = torch.empty((len(queries_Qd), 0), dtype=torch.int64)
    for part in blocks(len(documents_ND), _BLOCK):
        found_QB = queries_Qd @ in_form(documents_ND[part], form).T
        if own_Q is not None:
            _forbid(found_QB, own_Q, part)
        best_QK, where_QK = torch.topk(found_QB, min(most, found_QB.shape[1]), dim=1)
        scores_QM = torch.cat([scores_QK, best_QK], dim=1)
        places_QM = torch.cat([places_QK, where_QK + part.start], dim=1)
        scores_QK, order_QK = torch.topk(scores_QM, min(most, scores_QM.shape[1]), dim=1)
        places_QK = places_QM.gather(1, order_QK)
    return places_QK


def _forbid(scores_QB: Tensor, own_Q: Tensor, part: slice) -> None:
    """A document is no neighbour of itself."""
    rows_R = ((own_Q >= part.start) & (own_Q < part.stop)).nonzero()[:, 0]
    scores_QB[rows_R, own_Q[rows_R] - part.start] = -torch.inf

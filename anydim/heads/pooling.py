"""Pooling: token states -> one vector a text. It knows nothing of models, dimensions or requests.

Legend: T tokens in the batch, B texts, C = B + 1 boundaries, R rows that left the last layer, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anydim.types import Pooling


def rows_needed(pooling: Pooling, cu_seqlens_C: Tensor) -> Tensor | None:
    """Which token rows pooling reads: int (B,), one a text; None where it reads all T rows."""
    last_C = (cu_seqlens_C - 1).clamp_min(0)  # empty slots behind the last text point into it
    if pooling is Pooling.LAST:
        return last_C[1:]
    if pooling is Pooling.CLS:
        return torch.minimum(cu_seqlens_C[:-1], last_C[-1])
    return None


def pool(hidden_RD: Tensor, pooling: Pooling, cu_seqlens_C: Tensor) -> Tensor:
    """Pool the rows that ``rows_needed`` named to float32 (B, D).

    Source: sentence_transformers.models.Pooling; means are taken in float32.
    """
    if pooling in (Pooling.LAST, Pooling.CLS):
        return hidden_RD.float()
    reduce = "mean" if pooling is Pooling.MEAN else "max"
    return torch.segment_reduce(hidden_RD.float(), reduce, offsets=cu_seqlens_C.long(), axis=0)

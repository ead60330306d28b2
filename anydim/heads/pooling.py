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
    if hidden_RD.device.type in ("cpu", "cuda"):
        reduce = "mean" if pooling is Pooling.MEAN else "max"
        return torch.segment_reduce(hidden_RD.float(), reduce, offsets=cu_seqlens_C.long(), axis=0)
    return scatter_pool(hidden_RD, pooling, cu_seqlens_C)


def scatter_pool(hidden_TD: Tensor, pooling: Pooling, cu_seqlens_C: Tensor) -> Tensor:
    """Mean or maximum of each text's rows, float32 (B, D), on devices without segment_reduce, such as Apple's."""
    lengths_B = cu_seqlens_C.diff().long()
    text_T = torch.repeat_interleave(torch.arange(len(lengths_B), device=hidden_TD.device), lengths_B)
    pooled_BD = hidden_TD.new_zeros((len(lengths_B), hidden_TD.shape[1]), dtype=torch.float32)
    reduce = "mean" if pooling is Pooling.MEAN else "amax"
    index_TD = text_T[:, None].expand(-1, hidden_TD.shape[1])
    return pooled_BD.scatter_reduce(0, index_TD, hidden_TD.float(), reduce, include_self=False)

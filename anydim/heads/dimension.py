"""The dimension head: pooled states -> vectors of any dimension, many dimensions in one batch.

It knows nothing of models or requests. A vector of dimension d is the first d components of the pooled state (after
the optional rotation), then scaled to length one in float32: never scaled first.

Legend: B texts, D full width, W widest dimension in the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(pooled_BD: Tensor, rotation_DD: Tensor) -> Tensor:
    """Apply a fitted rotation, so that leading components carry more: float32 (B, D) @ (D, D)."""
    return pooled_BD @ rotation_DD


def cut(pooled_BD: Tensor, dims_B: Tensor, widest: int) -> Tensor:
    """Keep the first ``dims_B[i]`` components of row i and zero the rest: float32 (B, W), W = ``widest``."""
    columns_W = torch.arange(widest, device=pooled_BD.device, dtype=dims_B.dtype)
    return pooled_BD[:, :widest] * (columns_W < dims_B[:, None])


def normalize(cut_BW: Tensor, wanted_B: Tensor) -> tuple[Tensor, Tensor]:
    """Scale the rows where ``wanted_B`` to length one.

    Returns:
        The rows (B, W), and whether each row is finite (B,). A row of zeros stays zero.
    """
    norms_B = torch.linalg.vector_norm(cut_BW, dim=1)
    divisors_B = torch.where(wanted_B, norms_B.clamp_min(1e-12), 1.0)
    return cut_BW / divisors_B[:, None], torch.isfinite(norms_B)

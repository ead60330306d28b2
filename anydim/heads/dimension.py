"""The dimension head: pooled states -> vectors of any dimension, many dimensions in one batch.

It knows nothing of models or requests. A vector of dimension d is the first d components of the pooled state (after
the optional rotation), then scaled to length one in float32: never scaled first.

Legend: B texts, D full width, W widest dimension in the batch, E = W + 1.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
from torch import Tensor

Finish = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def select_finish(device: torch.device) -> Finish:
    """`finish`, or its Triton twin where that runs."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return finish
    from anydim.heads import dimension_triton

    return dimension_triton.finish


def finish(pooled_BD: Tensor, dims_B: Tensor, unit_B: Tensor, widest: int) -> Tensor:
    """`cut`, then `normalize`, as one block for one copy to the host.

    Args:
        pooled_BD: pooled states of any dtype.
        dims_B: int32, each row's dimension.
        unit_B: int32, not 0 where the row is scaled to length one.
        widest: the largest dimension.

    Returns:
        float32 (B, E): the rows, and behind each 1 where it is finite, else 0.
    """
    vectors_BW, finite_B = normalize(cut(pooled_BD.float(), dims_B, widest), unit_B.bool())
    return torch.cat([vectors_BW, finite_B[:, None].float()], dim=1)


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

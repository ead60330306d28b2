"""Embedding, a task of the runner: states that left the model -> vectors of many dimensions.

It knows the order of rotation and cut; it knows no model, no queue and no text.

Legend: B texts or tokens, D full width, E columns of a block: a vector's and a flag.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anydim.heads.dimension import rotate, select_finish
from anydim.types import Pooling


class Embedding:
    """What the runner does with an embedding model's states."""

    def __init__(self, pooling: Pooling, width: int, device: torch.device, rotation_DD: Tensor | None = None) -> None:
        """Prepare.

        Args:
            pooling: how states become one vector.
            width: components of the full vector.
            device: where it computes.
            rotation_DD: the fitted rotation, float32 (D, D), or None.
        """
        self.pooling = pooling
        self.width = width
        self._rotation_DD = rotation_DD
        self._finish = select_finish(device)

    def __call__(self, pooled_BD: Tensor, dims_B: Tensor, unit_B: Tensor, widest: int) -> Tensor:
        """Float32 (B, E): each state's vector and behind it whether it is finite."""
        if self._rotation_DD is not None:
            pooled_BD = rotate(pooled_BD, self._rotation_DD)
        return self._finish(pooled_BD, dims_B, unit_B, widest)

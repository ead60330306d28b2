"""Mute: the runner's task on a rank that is not the first: heads are the first one's business.

It knows which rows are read, since these leave the last layer on every rank; it knows no heads.

Legend: B texts, D full width.
"""

from __future__ import annotations

from torch import Tensor

from anydim.types import Pooling


class Mute:
    """A Task that makes nothing of the states."""

    def __init__(self, pooling: Pooling, width: int) -> None:
        """Read the rows that the first rank's task reads."""
        self.pooling = pooling
        self.width = width

    def __call__(self, pooled_BD: Tensor, dims_B: Tensor, unit_B: Tensor, widest: int) -> Tensor:
        """The states, which nobody looks at."""
        return pooled_BD

"""Scoring, a task of the runner: states that left the model -> one score a label.

It knows a head; it knows no model, no queue and no text. An Item's ``dim`` is the number of labels, and
``normalize`` says whether its scores are put between 0 and 1.

Legend: B texts, D full width, L labels, E = L + 1 columns of a block: scores and a
flag.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from anydim.heads.scoring import finish
from anydim.types import Pooling


class Scoring:
    """What the runner does with a reranker's or classifier's states."""

    def __init__(self, pooling: Pooling, labels: int, head: Callable[[Tensor], Tensor]) -> None:
        """Prepare.

        Args:
            pooling: which token is scored.
            labels: scores a text.
            head: pooled states (B, D) to raw scores (B, L), both float32.
        """
        self.pooling = pooling
        self.width = labels
        self._head = head

    def __call__(self, pooled_BD: Tensor, dims_B: Tensor, unit_B: Tensor, widest: int) -> Tensor:
        """Float32 (B, E): each state's scores and behind them whether they are finite."""
        return finish(self._head(pooled_BD), unit_B.bool())

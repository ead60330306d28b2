"""Packed: a batch of texts on the device, as every forward takes it, and the Model that takes it.

It knows nothing of any architecture. Legend: T tokens in the batch, R rows asked for, D hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from anydim.kernels import AttentionPlan
from anydim.models.feed import Product


@dataclass(frozen=True, slots=True)
class Packed:
    """Texts one after another, without padding.

    Attributes:
        ids_T: int32, token ids.
        positions_T: int32, each token's position in its own text.
        plan: where the texts lie and which prefixes they share, bound to the device.
    """

    ids_T: Tensor
    positions_T: Tensor
    plan: AttentionPlan


class Model(Protocol):
    """A packed forward, as the runner calls it."""

    @property
    def head_counts(self) -> tuple[int, int]:
        """Query heads and key-value heads; they decide how attention is tiled."""
        ...

    @property
    def takes_prefixes(self) -> bool:
        """Whether texts may share prefixes: no token sees what follows it, and attention reads shared ones."""
        ...

    @property
    def takes_dense(self) -> bool:
        """Whether a dense kernel may take the whole blocks of long texts."""
        ...

    def products(self) -> Sequence[Product]:
        """Each different product of a forward, those of the last layer's parts included."""
        ...

    def __call__(self, batch: Packed, rows_R: Tensor | None = None) -> Tensor:
        """Hidden states (R, D) of the rows asked for, one a text; of all T tokens where ``rows_R`` is None."""
        ...

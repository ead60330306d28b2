"""Staging: a Batch's small arrays on their way to the device, in one copy.

It knows arrays and devices; it knows no models and no queue.

Legend: T tokens in the batch, B texts, S text slots, C = S + 1 boundaries, W words of the attention plan's table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from anydim.kernels import AttentionPlan, bind_plan
from anydim.models.packed import Packed
from anydim.types import Batch, Int32Array


@dataclass(frozen=True, slots=True)
class Staged:
    """A batch on the device.

    Attributes:
        packed: what the model takes.
        dims_B: int32, the dimension that each text asked for.
        unit_B: int32, 1 where its vector is scaled to length one.
        host: the pinned memory that the copy reads; kept until the batch is answered.
    """

    packed: Packed
    dims_B: Tensor
    unit_B: Tensor
    host: Tensor

    @property
    def boundaries(self) -> Tensor:
        """int32 (C,), where each text starts, and the end of the last."""
        bounds_C = self.packed.plan.cu_seqlens_S1
        assert bounds_C is not None, "a staged plan is bound"
        return bounds_C


@dataclass(frozen=True, slots=True)
class Layout:
    """How many words of the one buffer each array takes: 2 T + 2 B + W, the table first for its alignment."""

    tokens: int
    texts: int
    table: int

    @property
    def words(self) -> int:
        """Words (int32) of the whole buffer."""
        return 2 * self.tokens + 2 * self.texts + self.table

    @classmethod
    def of(cls, tokens: int, plan: AttentionPlan) -> Self:
        """The layout of a plan's slots for ``tokens`` tokens."""
        return cls(tokens, plan.n_texts, len(plan.table_W))

    def write(self, words: Int32Array, batch: Batch, table_W: Int32Array) -> None:
        """Fill a host buffer of ``words`` words; what the batch leaves free becomes zero."""
        ids, texts, count = self.table, self.table + 2 * self.tokens, len(batch.items)
        words[ids:] = 0
        words[: len(table_W)] = table_W
        words[ids : ids + batch.tokens] = batch.ids_T
        words[ids + self.tokens : ids + self.tokens + batch.tokens] = batch.positions_T
        words[texts : texts + count] = batch.dims_B
        words[texts + self.texts : texts + self.texts + count] = [item.normalize for item in batch.items]

    def read(self, words: Tensor, plan: AttentionPlan, host: Tensor) -> Staged:
        """Views of a device buffer that ``write`` filled."""
        sizes = [self.table, self.tokens, self.tokens, self.texts, self.texts]
        table_W, ids_T, positions_T, dims_B, unit_B = torch.split_with_sizes(words, sizes)
        return Staged(Packed(ids_T, positions_T, bind_plan(plan, table_W)), dims_B, unit_B, host)


def stage(batch: Batch, plan: AttentionPlan, device: torch.device) -> Staged:
    """Copy a batch to the device without waiting for it."""
    layout = Layout.of(batch.tokens, plan)
    host = torch.empty(layout.words, dtype=torch.int32, pin_memory=device.type == "cuda")
    layout.write(host.numpy(), batch, plan.table_W)
    return layout.read(host.to(device, non_blocking=True), plan, host)

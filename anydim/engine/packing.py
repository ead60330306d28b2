"""Packing: Items -> one Batch without padding. It knows lengths; it knows no devices and no models.

Texts are laid out shortest first, so that equal lengths lie side by side and attention can take them as one block.

Legend: T tokens in the batch, B texts, C = B + 1 boundaries.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from anydim.types import Batch, Item


def pack(items: Sequence[Item]) -> Batch:
    """Pack at least one Item, each of at least one token."""
    assert items and all(len(item.ids) for item in items), "empty batches and texts never get here"
    lengths = np.array([len(item.ids) for item in items], dtype=np.int32)
    order_B = np.argsort(lengths, kind="stable").astype(np.int32)
    ordered = [items[index] for index in order_B.tolist()]
    cu_seqlens_C = np.zeros(len(items) + 1, dtype=np.int32)
    np.cumsum(lengths[order_B], out=cu_seqlens_C[1:])
    starts_T = np.repeat(cu_seqlens_C[:-1], lengths[order_B])
    return Batch(
        items=ordered,
        order_B=order_B,
        ids_T=np.concatenate([item.ids for item in ordered]),
        positions_T=np.arange(cu_seqlens_C[-1], dtype=np.int32) - starts_T,
        cu_seqlens_C=cu_seqlens_C,
        dims_B=np.array([item.dim for item in ordered], dtype=np.int32),
    )

"""Packing: Items -> one Batch without padding. It knows lengths; it knows no devices and no models.

Texts are laid out shortest first, so that equal lengths lie side by side and attention can take them as one block.

Where texts share prefixes, each of these is laid once behind the last text.

Legend: T tokens in the batch, B texts, C = B + 1 boundaries, P shared prefixes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from anydim.types import Batch, Item, Prefixes

_NO_ORDER: Final = np.zeros(1, dtype=np.int32)
_POSITIONS: Final = np.arange(1024, dtype=np.int32)
_NO_ORDER.flags.writeable = _POSITIONS.flags.writeable = False


def pack(items: Sequence[Item]) -> Batch:
    """Pack at least one Item, each of at least one token. The batch's arrays are read only by agreement."""
    assert items and all(len(item.ids) for item in items), "empty batches and texts never get here"
    if len(items) == 1:
        return _pack_one(items[0])
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


def _pack_one(item: Item) -> Batch:
    """``pack`` for the single text that someone waits for, without copies."""
    length = len(item.ids)
    return Batch(
        items=[item],
        order_B=_NO_ORDER,
        ids_T=item.ids,
        positions_T=_POSITIONS[:length] if length <= len(_POSITIONS) else np.arange(length, dtype=np.int32),
        cu_seqlens_C=np.array((0, length), dtype=np.int32),
        dims_B=np.array((item.dim,), dtype=np.int32),
    )


def factor_out(batch: Batch, prefixes: Prefixes) -> Batch:
    """The same texts in the same order, with each shared prefix once, behind what the texts have of their own.

    Every text must be longer than its prefix. Positions stay those of the whole text.
    """
    assert batch.prefixes is None, "the batch shares prefixes already"
    starts_B, lengths_B = batch.cu_seqlens_C[:-1], np.diff(batch.cu_seqlens_C)
    before_B = np.where(prefixes.prefix_B >= 0, prefixes.lengths_P[prefixes.prefix_B], 0)
    own_B = lengths_B - before_B
    assert (own_B > 0).all(), "a text has no token of its own"
    source_P = np.unique(prefixes.prefix_B, return_index=True)[1][-len(prefixes.lengths_P) :]
    place_T = np.concatenate([_ranges(starts_B + before_B, own_B), _ranges(starts_B[source_P], prefixes.lengths_P)])
    cu_seqlens_C = np.zeros_like(batch.cu_seqlens_C)
    np.cumsum(own_B, out=cu_seqlens_C[1:])
    return replace(
        batch,
        ids_T=batch.ids_T[place_T],
        positions_T=batch.positions_T[place_T],
        cu_seqlens_C=cu_seqlens_C,
        prefixes=prefixes,
    )


def _ranges(starts_N: NDArray[np.int32], lengths_N: NDArray[np.int32]) -> NDArray[np.int64]:
    """start, start + 1, ... of each range, one after another."""
    offset_N = starts_N - np.cumsum(lengths_N) + lengths_N
    return np.arange(int(lengths_N.sum())) + np.repeat(offset_N, lengths_N)

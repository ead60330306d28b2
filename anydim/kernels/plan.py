"""Attention plan: where each text of a packed batch lies, and how its queries are cut into tiles.

Made on the host once a batch, with numpy alone, and used by all layers. It knows lengths and head counts;
it knows nothing of tensors, devices (the owner of the device binds the table, see `attention.bind_plan`)
or models.

Shapes: S text slots, N tile slots, W words of the table that goes to the device in one copy:
    table_W = [cu_seqlens (S + 1 words) | zeros up to a multiple of 4 words | tiles (N rows of 3 words)]
A tile row is (first token of the text, one past its last token, first query token of the tile).
Spare slots are zero-length texts and rows of zeros, so that one CUDA graph serves every batch of a bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Int32 = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class TileShape:
    """Launch configuration of the attention kernel: one program takes `tokens` x `heads` query rows.

    tokens, block_keys: powers of two. heads: a power of two that divides the query heads of one kv head;
    tokens * heads >= 16 (the least a tensor core takes). split: run the keys that need no mask in a loop of
    their own. heads_first: programs next to each other take the heads of one tile (else tiles of one head).
    descriptors: load unmasked keys through the bulk copy engine (Hopper and later).
    """

    tokens: int
    heads: int
    block_keys: int
    num_warps: int
    num_stages: int
    split: bool = False
    heads_first: bool = True
    descriptors: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttentionPlan:
    """The layout of one packed batch. Filled by `make_plan`; the last two fields by `attention.bind_plan`.

    groups: runs of neighbours of equal length, in text order: (first token, number of texts, length).
    max_length: an upper bound of the text length, in tokens. n_texts, n_tiles: slots, spare ones included.
    """

    groups: tuple[tuple[int, int, int], ...]
    max_length: int
    n_texts: int
    n_tiles: int
    shape: TileShape
    table_W: Int32
    cu_seqlens_S1: Tensor | None = None
    tiles_N3: Tensor | None = None

    @property
    def tiles_at(self) -> int:
        """Index of the first word of the tile rows in `table_W`."""
        return _aligned(self.n_texts + 1)


def head_block(n_heads: int, n_kv_heads: int) -> int:
    """Query heads one program takes: the largest power of two, at most 8, that divides the group of a kv head."""
    group = n_heads // n_kv_heads
    return min(group & -group, 8)


def typical_length(lengths_S: NDArray[np.integer]) -> int:
    """Length of the text that a token of the batch is in, on average: what the tiles should suit."""
    lengths = np.asarray(lengths_S, dtype=np.int64)
    return int((lengths * lengths).sum() // max(int(lengths.sum()), 1))


def tile_shape(length: int, n_heads: int, n_kv_heads: int, *, itemsize: int = 2) -> TileShape:
    """Launch configuration for texts of about `length` tokens; any lengths come out right.

    itemsize: bytes of an element; float32 (4) takes smaller tiles, since its products are exact and its tiles
    twice as large. The sizes for 2 bytes were chosen on an H100 by `benchmarks/kernels.py`; see benchmarks/LOG.md.
    """
    heads = head_block(n_heads, n_kv_heads)
    if itemsize > 2:
        return _rows(32, heads, block_keys=16, num_warps=4, num_stages=1)
    if length <= 16:
        return _rows(64, heads, block_keys=16, num_warps=4, num_stages=1)
    if length <= 32:
        return _rows(64, heads, block_keys=32, num_warps=4, num_stages=2)
    if length <= 2048:
        return _rows(64, heads, block_keys=32, num_warps=4, num_stages=3, split=True, heads_first=False, copies=True)
    return _rows(128, heads, block_keys=64, num_warps=8, num_stages=3, split=True, heads_first=False)


def _rows(
    rows: int,
    heads: int,
    *,
    block_keys: int,
    num_warps: int,
    num_stages: int,
    split: bool = False,
    heads_first: bool = True,
    copies: bool = False,
) -> TileShape:
    return TileShape(
        tokens=max(rows // heads, 1),
        heads=heads,
        block_keys=block_keys,
        num_warps=num_warps,
        num_stages=num_stages,
        split=split,
        heads_first=heads_first,
        descriptors=copies,
    )


def tile_bound(n_tokens: int, n_texts: int, shape: TileShape) -> int:
    """Tile slots that suffice for any `n_texts` texts of `n_tokens` tokens together.

    Every text leaves at most one partly filled tile.
    """
    return n_tokens // shape.tokens + min(n_texts, n_tokens)


def make_plan(
    lengths: Sequence[int] | NDArray[np.integer],
    shape: TileShape,
    *,
    n_texts: int | None = None,
    n_tiles: int | None = None,
    max_length: int | None = None,
) -> AttentionPlan:
    """Lay out texts of these lengths (tokens, 0 allowed), packed one after another from token 0.

    n_texts, n_tiles: slots of the table, at least what the texts need, by default just that.
    max_length: bound to state in place of the longest length (a graph's bound holds for all its batches).
    Raises AssertionError when slots or bound are too small.
    """
    lengths_S = np.asarray(lengths, dtype=np.int64)
    ends_S = np.cumsum(lengths_S)
    tiles_N3 = _tiles(ends_S - lengths_S, lengths_S, shape.tokens)
    longest = int(lengths_S.max(initial=0))
    slots = len(lengths_S) if n_texts is None else n_texts
    rows = len(tiles_N3) if n_tiles is None else n_tiles
    bound = longest if max_length is None else max_length
    assert slots >= len(lengths_S), "too few text slots"
    assert rows >= len(tiles_N3), "too few tile slots"
    assert bound >= longest, "a text is longer than the bound"
    return AttentionPlan(
        groups=_groups(lengths_S),
        max_length=bound,
        n_texts=slots,
        n_tiles=rows,
        shape=shape,
        table_W=_table(ends_S, tiles_N3, slots, rows),
    )


def _tiles(starts_S: NDArray[np.int64], lengths_S: NDArray[np.int64], tokens: int) -> NDArray[np.int64]:
    """Tile rows, the heaviest first: a tile's work grows with the keys before its end."""
    count_S = -(-lengths_S // tokens)
    text_N = np.repeat(np.arange(len(lengths_S)), count_S)
    within_N = np.arange(len(text_N)) - np.repeat(np.cumsum(count_S) - count_S, count_S)
    start_N, end_N = starts_S[text_N], (starts_S + lengths_S)[text_N]
    first_N = start_N + within_N * tokens
    keys_N = np.minimum(first_N + tokens, end_N) - start_N
    order_N = np.argsort(-keys_N, kind="stable")
    return np.stack([start_N, end_N, first_N], axis=1)[order_N]


def _groups(lengths_S: NDArray[np.int64]) -> tuple[tuple[int, int, int], ...]:
    if not len(lengths_S):
        return ()
    edges = [0, *(np.flatnonzero(np.diff(lengths_S)) + 1).tolist(), len(lengths_S)]
    starts = (np.cumsum(lengths_S) - lengths_S).tolist()
    return tuple((int(starts[a]), b - a, int(lengths_S[a])) for a, b in pairwise(edges))


def _table(ends_S: NDArray[np.int64], tiles_N3: NDArray[np.int64], slots: int, rows: int) -> Int32:
    total = int(ends_S[-1]) if len(ends_S) else 0
    assert total < 2**31, "token positions are 32-bit"
    first = _aligned(slots + 1)
    table_W = np.zeros(first + 3 * rows, dtype=np.int32)
    table_W[1 : slots + 1] = total
    table_W[1 : len(ends_S) + 1] = ends_S
    table_W[first : first + tiles_N3.size] = tiles_N3.ravel()
    return table_W


def _aligned(words: int) -> int:
    """Round up to 16 bytes: an address off that line would make Triton compile a second kernel."""
    return -(-words // 4) * 4

"""Attention plan: where each text of a packed batch lies, and how its queries are cut into tiles.

Made on the host once a batch, with numpy alone, and used by all layers. It knows lengths and head counts;
it knows nothing of tensors, devices (the owner of the device binds the table, see `attention.bind_plan`)
or models.

Shapes: B texts, S text slots, N tile slots, P shared prefixes, G = S + P runs of tokens, K groups of texts, W words
of the table that goes to the device in one copy:
    table_W = [cu_seqlens (S + 1 words) | zeros up to a multiple of 4 words | tiles (N rows of 3 words)]
A tile row is (first token of the text, one past its last token, first query token of the tile).
Spare slots are zero-length texts and rows of zeros, so that one CUDA graph serves every batch of a bucket.
Where texts share prefixes, these lie behind the last text and have tiles as texts have. The table then goes on with N
rows of 2 words for the tiles and S for the texts: (first token of the prefix, one past its last), zeros for none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anydim.types import Prefixes

if TYPE_CHECKING:
    from torch import Tensor

_ONE_ROUND: Final = 8192  # query rows, 64 a program: 128 programs, an H100 has 132 processors

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


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


class Group(NamedTuple):
    """Neighbouring texts of `length` own tokens each, behind the tokens prefix..prefix_end (none where equal)."""

    first: int
    texts: int
    length: int
    prefix: int
    prefix_end: int


class Dense(NamedTuple):
    """The first `tokens` of each of `texts` neighbouring texts of `length`: what a dense kernel takes."""

    first: int
    texts: int
    length: int
    tokens: int

    @property
    def end(self) -> int:
        """One past the last token of the last text."""
        return self.first + self.texts * self.length


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AttentionPlan:
    """The layout of one packed batch. Filled by `make_plan`; the last four fields by `attention.bind_plan`.

    groups: the texts, in order. prefix_groups: the shared prefixes behind them; () where there are none.
    dense: the parts of long texts that no tile covers, since a dense kernel takes them; () where there are none.
    max_length: an upper bound of a text's tokens, its prefix included. n_texts, n_tiles: slots, spare ones included.
    cu_seqlens_S1: where each text's own tokens start. tile_prefixes_N2, text_prefixes_S2: None without prefixes.
    """

    groups: tuple[Group, ...]
    prefix_groups: tuple[Group, ...]
    dense: tuple[Dense, ...]
    max_length: int
    n_texts: int
    n_tiles: int
    shape: TileShape
    table_W: Int32
    cu_seqlens_S1: Tensor | None = None
    tiles_N3: Tensor | None = None
    tile_prefixes_N2: Tensor | None = None
    text_prefixes_S2: Tensor | None = None

    @property
    def tiles_at(self) -> int:
        """Index of the first word of the tile rows in `table_W`."""
        return _aligned(self.n_texts + 1)


def head_block(n_heads: int, n_kv_heads: int) -> int:
    """Query heads one program takes: the largest power of two, at most 8, that divides the group of a kv head."""
    group = n_heads // n_kv_heads
    return min(group & -group, 8)


def typical_length(lengths_S: NDArray[np.integer], prefixes: Prefixes | None = None) -> int:
    """Length of the text that a token of the batch is in, on average: what the tiles should suit.

    lengths_S: each text's own tokens. Its prefix counts as part of the text, since its keys are read too.
    """
    own_G, before_G = _runs(np.asarray(lengths_S, dtype=np.int64), prefixes)
    length_G = own_G + before_G[:, 1] - before_G[:, 0]
    return int((own_G * length_G).sum() // max(int(own_G.sum()), 1))


def tile_shape(length: int, n_heads: int, n_kv_heads: int, *, itemsize: int = 2, is_small: bool = False) -> TileShape:
    """Launch configuration for texts of about `length` tokens; any lengths come out right.

    itemsize: bytes of an element; float32 (4) takes smaller tiles, since its products are exact and its tiles
    twice as large. is_small: whether `length` is the whole batch, and about as many programs as the GPU has processors
    or fewer, so that what counts is how long one program takes.
    The sizes for 2 bytes were chosen on an H100 by `benchmarks/kernels.py`; see benchmarks/LOG.md.
    """
    heads = head_block(n_heads, n_kv_heads)
    if itemsize > 2:
        return _rows(32, heads, block_keys=16, num_warps=4, num_stages=1)
    if length <= 16:
        return _rows(64, heads, block_keys=16, num_warps=4, num_stages=1)
    if length <= 32:
        return _rows(64, heads, block_keys=32, num_warps=4, num_stages=2)
    if is_small:
        stages = 3 if length * n_heads <= _ONE_ROUND else 2  # beyond it two programs share a processor's memory
        return _rows(64, heads, block_keys=64, num_warps=4, num_stages=stages, split=True, copies=True)
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


def stages_that_fit(shape: TileShape, row_bytes: int, memory: int) -> int:
    """The stages of a launch, fewer where a GPU's shared memory does not hold them.

    row_bytes: of a query, key or value of one head. memory: bytes of shared memory that one program may take.
    """
    queries = shape.tokens * shape.heads * row_bytes
    stage = 2 * shape.block_keys * row_bytes
    return max(1, min(shape.num_stages, (memory - queries) // stage))


def tile_bound(n_tokens: int, n_texts: int, shape: TileShape) -> int:
    """Tile slots that suffice for any `n_texts` texts of `n_tokens` tokens together.

    Every text leaves at most one partly filled tile.
    """
    return n_tokens // shape.tokens + min(n_texts, n_tokens)


def dense_length(length: int) -> int:
    """How many of a text's first tokens a dense kernel takes: whole blocks, so that it meets few lengths; 0 for short
    texts. Chosen on an H100; see benchmarks/LOG.md.
    """
    if length < 4096:
        return 0
    block = 1024 if length < 8192 else 2048
    return length // block * block


def make_plan(
    lengths: Sequence[int] | NDArray[np.integer],
    shape: TileShape,
    *,
    n_texts: int | None = None,
    n_tiles: int | None = None,
    max_length: int | None = None,
    prefixes: Prefixes | None = None,
    dense: bool = False,
) -> AttentionPlan:
    """Lay out texts of these lengths (tokens, 0 allowed), packed one after another from token 0.

    n_texts, n_tiles: slots of the table, at least what the texts need, by default just that.
    max_length: bound to state in place of the longest length (a graph's bound holds for all its batches).
    prefixes: what the texts share; then `lengths` are what each has of its own.
    dense: leave the whole blocks of long texts (`dense_length`) to a dense kernel; not where texts share prefixes.
    Raises AssertionError when slots or bound are too small.
    """
    count = len(lengths)
    lengths_G, before_G2 = _runs(np.asarray(lengths, dtype=np.int64), prefixes)
    ends_G = np.cumsum(lengths_G)
    starts_G = ends_G - lengths_G
    groups = _groups(starts_G[:count], lengths_G[:count], before_G2[:count])
    whole = _dense(groups) if dense and prefixes is None else ()
    tiles_N3, run_N = _tiles(starts_G, lengths_G, before_G2, shape.tokens)
    if whole:
        tiles_N3 = _without_dense(tiles_N3)
    longest = int((lengths_G + before_G2[:, 1] - before_G2[:, 0]).max(initial=0))
    slots = count if n_texts is None else n_texts
    rows = len(tiles_N3) if n_tiles is None else n_tiles
    bound = longest if max_length is None else max_length
    assert slots >= count, "too few text slots"
    assert rows >= len(tiles_N3), "too few tile slots"
    assert bound >= longest, "a text is longer than the bound"
    assert ends_G[-1:].sum() < 2**31, "token positions are 32-bit"
    table_W = _table(ends_G[:count], tiles_N3, slots, rows)
    if prefixes is not None:
        table_W = np.concatenate([table_W, _padded(before_G2[run_N], rows), _padded(before_G2[:count], slots)])
    return AttentionPlan(
        groups=groups,
        prefix_groups=_groups(starts_G[count:], lengths_G[count:], before_G2[count:]),
        dense=whole,
        max_length=bound,
        n_texts=slots,
        n_tiles=rows,
        shape=shape,
        table_W=table_W,
    )


def _runs(lengths_S: Int64, prefixes: Prefixes | None) -> tuple[Int64, Int64]:
    """All runs of tokens, the prefixes behind the texts: their lengths (G,), and the prefix before each (G, 2)."""
    if prefixes is None:
        return lengths_S, np.zeros((len(lengths_S), 2), np.int64)
    lengths_G = np.concatenate([lengths_S, prefixes.lengths_P])
    ends_P = np.cumsum(lengths_G)[len(lengths_S) :]
    before_G2 = np.zeros((len(lengths_G), 2), np.int64)
    has_S = np.flatnonzero(prefixes.prefix_B >= 0)
    before_G2[has_S] = np.stack([ends_P - prefixes.lengths_P, ends_P], axis=1)[prefixes.prefix_B[has_S]]
    return lengths_G, before_G2


def _tiles(starts_G: Int64, lengths_G: Int64, before_G2: Int64, tokens: int) -> tuple[Int64, Int64]:
    """Tile rows and the run of each, the heaviest first: a tile's work grows with the keys before its end."""
    count_G = -(-lengths_G // tokens)
    run_N = np.repeat(np.arange(len(lengths_G)), count_G)
    within_N = np.arange(len(run_N)) - np.repeat(np.cumsum(count_G) - count_G, count_G)
    start_N, end_N = starts_G[run_N], (starts_G + lengths_G)[run_N]
    first_N = start_N + within_N * tokens
    keys_N = np.minimum(first_N + tokens, end_N) - start_N + (before_G2[:, 1] - before_G2[:, 0])[run_N]
    order_N = np.argsort(-keys_N, kind="stable")
    return np.stack([start_N, end_N, first_N], axis=1)[order_N], run_N[order_N]


def _dense(groups: Sequence[Group]) -> tuple[Dense, ...]:
    long = (Dense(group.first, group.texts, group.length, dense_length(group.length)) for group in groups)
    return tuple(dense for dense in long if dense.tokens)


def _without_dense(tiles_N3: Int64) -> Int64:
    """The tiles behind the dense part of their text. Blocks are a multiple of every tile."""
    start_N, end_N, first_N = tiles_N3.T
    lengths, of_N = np.unique(end_N - start_N, return_inverse=True)
    dense_N = np.array([dense_length(int(length)) for length in lengths])[of_N]
    behind_N3: Int64 = tiles_N3[first_N - start_N >= dense_N]
    return behind_N3


def _groups(starts_G: Int64, lengths_G: Int64, before_G2: Int64) -> tuple[Group, ...]:
    if not len(lengths_G):
        return ()
    opens_G = np.ones(len(lengths_G), bool)
    opens_G[1:] = (lengths_G[1:] != lengths_G[:-1]) | (before_G2[1:, 0] != before_G2[:-1, 0])
    first_K = np.flatnonzero(opens_G)
    texts_K = np.diff(first_K, append=len(lengths_G))
    rows_K5 = np.column_stack([starts_G[first_K], texts_K, lengths_G[first_K], before_G2[first_K]])
    return tuple(map(Group._make, rows_K5.tolist()))


def _table(ends_S: Int64, tiles_N3: Int64, slots: int, rows: int) -> Int32:
    total = int(ends_S[-1]) if len(ends_S) else 0
    first = _aligned(slots + 1)
    table_W = np.zeros(first + 3 * rows, dtype=np.int32)
    table_W[1 : slots + 1] = total
    table_W[1 : len(ends_S) + 1] = ends_S
    table_W[first : first + tiles_N3.size] = tiles_N3.ravel()
    return table_W


def _padded(ranges_N2: Int64, rows: int) -> Int32:
    """Words of so many rows, zeros behind those given."""
    words = np.zeros(2 * rows, dtype=np.int32)
    words[: ranges_N2.size] = ranges_N2.ravel()
    return words


def _aligned(words: int) -> int:
    """Round up to 16 bytes: an address off that line would make Triton compile a second kernel."""
    return -(-words // 4) * 4

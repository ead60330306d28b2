"""The attention plan: every query token lies in one tile, spare slots do nothing, one table serves a bucket."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anydim.kernels import TileShape, bind_plan, make_plan, place_plan, tile_bound, tile_shape

LENGTHS = st.lists(st.integers(0, 70), max_size=12)
TOKENS = st.sampled_from([1, 4, 16, 64])


def shape_of(tokens: int) -> TileShape:
    return TileShape(tokens=tokens, heads=4, block_keys=16, num_warps=4, num_stages=1)


@given(LENGTHS, TOKENS)
def test_tiles_cover_each_token_once_within_its_text(lengths: list[int], tokens: int) -> None:
    tiles_N3 = place_plan(make_plan(lengths, shape_of(tokens)), "cpu").tiles_N3
    assert tiles_N3 is not None
    covered: list[tuple[int, int, int]] = []
    for start, end, first in tiles_N3.tolist():
        assert start <= first < end
        covered += [(token, start, end) for token in range(first, min(first + tokens, end))]
    ends = np.cumsum(lengths).tolist()
    wanted = [(t, e - n, e) for e, n in zip(ends, lengths, strict=True) for t in range(e - n, e)]
    assert sorted(covered) == wanted


@given(LENGTHS, TOKENS)
def test_heavy_tiles_come_first(lengths: list[int], tokens: int) -> None:
    tiles_N3 = place_plan(make_plan(lengths, shape_of(tokens)), "cpu").tiles_N3
    assert tiles_N3 is not None
    keys = [min(first + tokens, end) - start for start, end, first in tiles_N3.tolist()]
    assert keys == sorted(keys, reverse=True)


@given(LENGTHS, TOKENS, st.integers(0, 5))
def test_tile_bound_suffices_for_a_bucket(lengths: list[int], tokens: int, spare: int) -> None:
    shape, slots = shape_of(tokens), len(lengths) + spare
    plan = make_plan(lengths, shape, n_texts=slots, n_tiles=tile_bound(sum(lengths), slots, shape), max_length=99)
    placed = place_plan(plan, "cpu")
    assert placed.cu_seqlens_S1 is not None
    assert placed.tiles_N3 is not None
    assert placed.cu_seqlens_S1.tolist() == [0, *np.cumsum(lengths).tolist(), *[sum(lengths)] * spare]
    used = len(place_plan(make_plan(lengths, shape), "cpu").tiles_N3)  # type: ignore[arg-type]
    assert not placed.tiles_N3[used:].any()
    assert plan.max_length == 99


@given(LENGTHS)
def test_groups_are_runs_of_equal_neighbours(lengths: list[int]) -> None:
    groups = make_plan(lengths, shape_of(16)).groups
    assert [length for _, count, length in groups for _ in range(count)] == lengths
    assert all(a[2] != b[2] for a, b in pairwise(groups))
    token = 0
    for first, count, length in groups:
        assert first == token
        token += count * length


def test_a_bound_table_serves_the_next_batch_after_one_copy() -> None:
    shape, slots = shape_of(16), {"n_texts": 6, "n_tiles": 12, "max_length": 64}
    first, second = (make_plan(lengths, shape, **slots) for lengths in ([3, 20], [1, 5, 64]))
    table_W = torch.from_numpy(first.table_W.copy())
    bound, wanted = bind_plan(first, table_W), place_plan(second, "cpu")
    table_W.copy_(torch.from_numpy(second.table_W))
    assert torch.equal(bound.cu_seqlens_S1, wanted.cu_seqlens_S1)  # type: ignore[arg-type]
    assert torch.equal(bound.tiles_N3, wanted.tiles_N3)  # type: ignore[arg-type]


@pytest.mark.parametrize("slots", [{"n_texts": 1}, {"n_tiles": 1}, {"max_length": 4}])
def test_too_few_slots_are_refused(slots: dict[str, int]) -> None:
    with pytest.raises(AssertionError):
        make_plan([20, 30], shape_of(16), **slots)


@pytest.mark.parametrize(("heads", "kv_heads"), [(32, 8), (16, 8), (12, 12), (40, 8), (24, 2), (64, 4), (3, 1)])
@pytest.mark.parametrize("max_length", [1, 32, 64, 512, 32768])
@pytest.mark.parametrize("itemsize", [2, 4])
def test_every_shape_fits_the_heads_and_the_tensor_cores(
    heads: int, kv_heads: int, max_length: int, itemsize: int
) -> None:
    shape = tile_shape(max_length, heads, kv_heads, itemsize=itemsize)
    assert (heads // kv_heads) % shape.heads == 0
    assert shape.tokens * shape.heads >= 16
    assert shape.block_keys >= 16
    for size in (shape.tokens, shape.heads, shape.block_keys, shape.num_warps):
        assert size & (size - 1) == 0

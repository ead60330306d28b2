"""The attention plan: every query token lies in one tile, spare slots do nothing, one table serves a bucket."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anydim.kernels import TileShape, bind_plan, make_plan, place_plan, tile_bound, tile_shape, typical_length
from anydim.kernels.plan import stages_that_fit
from anydim.types import Prefixes

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


@given(st.lists(st.sampled_from([1, 500, 4095, 4096, 4097, 5120, 8191, 8192, 9000, 20000, 32768]), max_size=6), TOKENS)
def test_tiles_and_dense_parts_cover_each_token_once(lengths: list[int], tokens: int) -> None:
    """A dense kernel meets few lengths, since each costs it a plan; the tiles take what is left."""
    plan = place_plan(make_plan(sorted(lengths), shape_of(tokens), dense=True), "cpu")
    assert plan.tiles_N3 is not None
    seen = np.zeros(sum(lengths), int)
    for _, end, first in plan.tiles_N3.tolist():
        seen[first : min(first + tokens, end)] += 1
    for dense in plan.dense:
        assert dense.tokens % 1024 == 0 and 0 <= dense.length - dense.tokens < 2048
        texts = seen[dense.first : dense.end].reshape(dense.texts, dense.length)
        texts[:, : dense.tokens] += 1
    assert (seen == 1).all()
    assert sum(dense.texts for dense in plan.dense) == sum(length >= 4096 for length in lengths)


def test_texts_that_share_a_prefix_leave_nothing_to_a_dense_kernel() -> None:
    """It would not see the prefix."""
    prefixes = Prefixes(np.array([100], np.int32), np.array([0, 0], np.int32))
    plan = make_plan([5000, 6000], shape_of(16), prefixes=prefixes, dense=True)
    assert not plan.dense
    assert plan.table_W.tolist() == make_plan([5000, 6000], shape_of(16), prefixes=prefixes).table_W.tolist()


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
    assert [group.length for group in groups for _ in range(group.texts)] == lengths
    assert all(a.length != b.length for a, b in pairwise(groups))
    token = 0
    for group in groups:
        assert group.first == token
        assert group.prefix == group.prefix_end
        token += group.texts * group.length


@given(st.data(), TOKENS, st.integers(0, 3))
def test_every_tile_and_text_knows_its_prefix(data: st.DataObject, tokens: int, spare: int) -> None:
    prefix_lengths = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    prefix_of = data.draw(st.lists(st.integers(-1, len(prefix_lengths) - 1), min_size=1, max_size=10))
    lengths = data.draw(st.lists(st.integers(1, 40), min_size=len(prefix_of), max_size=len(prefix_of)))
    prefixes = Prefixes(np.array(prefix_lengths, np.int32), np.array(prefix_of, np.int32))
    slots, shape = len(lengths) + spare, shape_of(tokens)
    total = sum(lengths) + sum(prefix_lengths)
    tiles = tile_bound(total, slots + len(prefix_lengths), shape)
    plan = place_plan(make_plan(lengths, shape, n_texts=slots, n_tiles=tiles, prefixes=prefixes), "cpu")
    ends = np.cumsum([*lengths, *prefix_lengths]).tolist()
    ranges = [(end - n, end) for end, n in zip(ends[len(lengths) :], prefix_lengths, strict=True)]
    wanted = [ranges[prefix] if prefix >= 0 else (0, 0) for prefix in prefix_of]
    assert plan.text_prefixes_S2.tolist() == [*map(list, wanted), *[[0, 0]] * spare]  # type: ignore[union-attr]
    assert plan.cu_seqlens_S1.tolist() == [0, *ends[: len(lengths)], *[sum(lengths)] * spare]  # type: ignore[union-attr]
    covered, keys = [], []
    rows = zip(plan.tiles_N3.tolist(), plan.tile_prefixes_N2.tolist(), strict=True)  # type: ignore[union-attr]
    for (start, end, first), before in rows:
        if start < end:
            run = ends.index(end)
            assert tuple(before) == (wanted[run] if run < len(lengths) else (0, 0))
            covered += range(first, min(first + tokens, end))
        else:
            assert not any(before)
        keys.append(min(first + tokens, end) - start + before[1] - before[0])
    assert sorted(covered) == list(range(total))
    assert keys == sorted(keys, reverse=True)
    assert plan.max_length == max(
        n + b - a for n, (a, b) in zip([*lengths, *prefix_lengths], [*wanted, *[(0, 0)] * 4], strict=False)
    )
    texts = [(group.length, group.prefix, group.prefix_end) for group in plan.groups for _ in range(group.texts)]
    assert texts == [(n, *before) for n, before in zip(lengths, wanted, strict=True)]


def test_the_typical_length_counts_prefixes() -> None:
    """A token of a text has its prefix's keys to read too."""
    prefixes = Prefixes(np.array([100], np.int32), np.array([0, 0, -1], np.int32))
    assert typical_length(np.array([20, 20, 60])) == (20 * 20 * 2 + 60 * 60) // 100
    assert typical_length(np.array([20, 20, 60]), prefixes) == (20 * 120 * 2 + 60 * 60 + 100 * 100) // 200


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
@pytest.mark.parametrize("is_small", [True, False])
def test_every_shape_fits_the_heads_and_the_tensor_cores(
    heads: int, kv_heads: int, max_length: int, itemsize: int, is_small: bool
) -> None:
    shape = tile_shape(max_length, heads, kv_heads, itemsize=itemsize, is_small=is_small)
    assert (heads // kv_heads) % shape.heads == 0
    assert shape.tokens * shape.heads >= 16
    assert shape.block_keys >= 16
    for size in (shape.tokens, shape.heads, shape.block_keys, shape.num_warps):
        assert size & (size - 1) == 0


@pytest.mark.parametrize("kibibytes", [99, 163, 227])
@pytest.mark.parametrize("is_small", [True, False])
@pytest.mark.parametrize("length", [8, 32, 256, 1024, 8192])
def test_stages_fit_into_the_shared_memory_of_other_gpus(kibibytes: int, is_small: bool, length: int) -> None:
    """As the CUDA programming guide gives it: 99 KiB on GeForce cards, 163 on an A100, 227 on an H100."""
    shape = tile_shape(length, 32, 8, is_small=is_small)
    stages = stages_that_fit(shape, 128 * 2, kibibytes << 10)
    rows = shape.tokens * shape.heads + 2 * stages * shape.block_keys
    assert 1 <= stages <= shape.num_stages
    assert rows * 128 * 2 <= kibibytes << 10

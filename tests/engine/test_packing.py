"""Packing keeps every token, in an order that its reader can undo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anydim.engine.packing import factor_out, pack
from anydim.types import Item, Prefixes

texts = st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=40), min_size=1, max_size=30)


@given(texts)
def test_nothing_is_lost_and_nothing_is_padded(ids: list[list[int]]) -> None:
    batch = pack([Item(np.array(row, np.int32), 32) for row in ids])
    assert batch.tokens == sum(map(len, ids))
    for place, origin in enumerate(batch.order_B.tolist()):
        start, end = batch.cu_seqlens_C[place : place + 2]
        assert batch.ids_T[start:end].tolist() == ids[origin]
        assert batch.positions_T[start:end].tolist() == list(range(len(ids[origin])))


@pytest.mark.parametrize("length", [1, 1023, 1024, 1025, 5000])
def test_one_text_alone_is_packed_as_it_is_among_others(length: int) -> None:
    item = Item(np.arange(3, length + 3, dtype=np.int32), 96)
    alone, among = pack([item]), pack([item, Item(np.zeros(length + 1, np.int32), 32)])
    assert alone.items == among.items[:1]
    for name, size in {"ids_T": length, "positions_T": length, "cu_seqlens_C": 2, "dims_B": 1}.items():
        ours, theirs = getattr(alone, name), getattr(among, name)[:size]
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype == np.int32
    assert alone.order_B.tolist() == [0]


@given(texts)
def test_texts_of_equal_length_are_neighbours(ids: list[list[int]]) -> None:
    lengths = np.diff(pack([Item(np.array(row, np.int32), 32) for row in ids]).cu_seqlens_C)
    assert lengths.tolist() == sorted(map(len, ids))


@given(st.lists(st.integers(1, 64), min_size=1, max_size=20))
def test_each_text_keeps_its_own_dimension(dims: list[int]) -> None:
    batch = pack([Item(np.zeros(1 + dim % 5, np.int32), dim) for dim in dims])
    assert [dims[origin] for origin in batch.order_B.tolist()] == batch.dims_B.tolist()


@given(st.data())
def test_taking_prefixes_out_keeps_every_text(data: st.DataObject) -> None:
    """Prefix and own part give each text back, with the positions that its tokens have in it."""
    shared = data.draw(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=20), min_size=1, max_size=4))
    tails = data.draw(st.lists(st.lists(st.integers(10, 19), min_size=1, max_size=20), min_size=1, max_size=12))
    chosen = data.draw(st.lists(st.integers(-1, len(shared) - 1), min_size=len(tails), max_size=len(tails)))
    used = sorted(set(chosen) - {-1})
    if not used:
        return
    texts = [(shared[pick] if pick >= 0 else []) + tail for pick, tail in zip(chosen, tails, strict=True)]
    whole = pack([Item(np.array(text, np.int32), 32) for text in texts])
    lengths_P = np.array([len(shared[pick]) for pick in used], np.int32)
    prefix_B = np.array([used.index(pick) if pick >= 0 else -1 for pick in chosen], np.int32)[whole.order_B]
    batch = factor_out(whole, Prefixes(lengths_P, prefix_B))
    assert batch.tokens == sum(map(len, tails)) + int(lengths_P.sum())
    assert batch.items is whole.items
    ends = batch.cu_seqlens_C[-1] + np.cumsum(lengths_P)
    for place, origin in enumerate(batch.order_B.tolist()):
        own = np.arange(*batch.cu_seqlens_C[place : place + 2])
        pick = prefix_B[place]
        before = np.arange(ends[pick] - lengths_P[pick], ends[pick]) if pick >= 0 else np.arange(0)
        rows = np.concatenate([before, own]).astype(int)
        assert batch.ids_T[rows].tolist() == texts[origin]
        assert batch.positions_T[rows].tolist() == list(range(len(texts[origin])))


def test_a_text_that_is_no_longer_than_its_prefix_is_refused() -> None:
    batch = pack([Item(np.arange(5, dtype=np.int32), 32)] * 2)
    with pytest.raises(AssertionError):
        factor_out(batch, Prefixes(np.array([5], np.int32), np.zeros(2, np.int32)))

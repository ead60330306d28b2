"""Packing keeps every token, in an order that its reader can undo."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from anydim.engine.packing import pack
from anydim.types import Item

texts = st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=40), min_size=1, max_size=30)


@given(texts)
def test_nothing_is_lost_and_nothing_is_padded(ids: list[list[int]]) -> None:
    batch = pack([Item(np.array(row, np.int32), 32) for row in ids])
    assert batch.tokens == sum(map(len, ids))
    for place, origin in enumerate(batch.order_B.tolist()):
        start, end = batch.cu_seqlens_C[place : place + 2]
        assert batch.ids_T[start:end].tolist() == ids[origin]
        assert batch.positions_T[start:end].tolist() == list(range(len(ids[origin])))


@given(texts)
def test_texts_of_equal_length_are_neighbours(ids: list[list[int]]) -> None:
    lengths = np.diff(pack([Item(np.array(row, np.int32), 32) for row in ids]).cu_seqlens_C)
    assert lengths.tolist() == sorted(map(len, ids))


@given(st.lists(st.integers(1, 64), min_size=1, max_size=20))
def test_each_text_keeps_its_own_dimension(dims: list[int]) -> None:
    batch = pack([Item(np.zeros(1 + dim % 5, np.int32), dim) for dim in dims])
    assert [dims[origin] for origin in batch.order_B.tolist()] == batch.dims_B.tolist()

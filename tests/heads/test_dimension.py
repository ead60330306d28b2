"""The dimension head on given pooled states: cut first, then scale; every row its own dimension."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from anydim.heads.dimension import cut, finish, normalize, rotate

FLOATS = st.floats(-1e6, 1e6, width=32)
MATRICES = arrays.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 70)), elements=FLOATS)


@given(pooled=MATRICES, data=st.data())
def test_cut_then_scale(pooled: NDArray[np.float32], data: st.DataObject) -> None:
    rows, width = pooled.shape
    dims = data.draw(st.lists(st.integers(1, width), min_size=rows, max_size=rows))
    unit = data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows))
    cut_BW = cut(torch.from_numpy(pooled), torch.tensor(dims, dtype=torch.int32), max(dims))
    vectors_BW, finite_B = normalize(cut_BW, torch.tensor(unit))
    assert vectors_BW.shape == (rows, max(dims))
    assert finite_B.all()
    for row, dim, wanted, vector in zip(pooled, dims, unit, vectors_BW.numpy(), strict=True):
        head = row[:dim].astype(np.float64)
        length = np.linalg.norm(head) if wanted else 1.0
        if length > 1e-6:
            np.testing.assert_allclose(vector[:dim], head / length, rtol=1e-5, atol=1e-6)
        assert not vector[dim:].any()


@given(pooled=MATRICES, data=st.data())
def test_one_block_for_the_way_home(pooled: NDArray[np.float32], data: st.DataObject) -> None:
    rows, width = pooled.shape
    broken = data.draw(st.integers(0, rows - 1))
    pooled[broken, 0] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    dims = torch.tensor(data.draw(st.lists(st.integers(1, width), min_size=rows, max_size=rows)), dtype=torch.int32)
    unit = torch.tensor(data.draw(st.lists(st.integers(0, 1), min_size=rows, max_size=rows)), dtype=torch.int32)
    block_BE = finish(torch.from_numpy(pooled), dims, unit, width)
    vectors_BW, _ = normalize(cut(torch.from_numpy(pooled), dims, width), unit.bool())
    assert block_BE[:, -1].tolist() == [float(row != broken) for row in range(rows)]
    torch.testing.assert_close(block_BE[:, :-1], vectors_BW, equal_nan=True, atol=0, rtol=0)


def test_a_row_of_zeros_stays_zero() -> None:
    vectors_BW, finite_B = normalize(torch.zeros(2, 8), torch.tensor([True, False]))
    assert not vectors_BW.any()
    assert finite_B.all()


def test_rows_that_are_not_finite_are_told() -> None:
    rows = torch.ones(4, 6)
    rows[1, 2], rows[3, 5] = float("nan"), float("inf")
    vectors_BW, finite_B = normalize(rows, torch.ones(4, dtype=torch.bool))
    assert finite_B.tolist() == [True, False, True, False]
    torch.testing.assert_close(vectors_BW[[0, 2]], torch.full((2, 6), 6**-0.5))


def test_the_full_vector_is_never_scaled_before_the_cut() -> None:
    pooled_BD = torch.tensor([[3.0, 4.0, 1000.0]])
    vectors_BW, _ = normalize(cut(pooled_BD, torch.tensor([2]), 2), torch.tensor([True]))
    torch.testing.assert_close(vectors_BW, torch.tensor([[0.6, 0.8]]))


def test_rotation_multiplies_from_the_right() -> None:
    pooled_BD, rotation_DD = torch.randn(3, 5), torch.linalg.qr(torch.randn(5, 5))[0]
    expected = pooled_BD.double().numpy() @ rotation_DD.double().numpy()
    np.testing.assert_allclose(rotate(pooled_BD, rotation_DD).numpy(), expected, atol=1e-5)

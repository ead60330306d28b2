"""Many dimensions searched in one sweep find what each finds alone, by scikit-learn's exhaustive search."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from anydim.quality import nearest as module
from anydim.quality.forms import DTYPES, Form, Rows, families, in_form
from anydim.quality.nearest import nearest, nearest_each
from anydim.quality.ranking import sampled
from anydim.quality.workers import in_order
from anydim.types import OutputDtype
from tests.quality.rows import hidden_structure

DIMS = (5, 32, 64)


@pytest.mark.parametrize("dtype", [*DTYPES, OutputDtype.UINT8, OutputDtype.UBINARY])
@pytest.mark.parametrize("block", [64, 4096])
def test_each_dimension_finds_its_own_neighbours(
    monkeypatch: pytest.MonkeyPatch, dtype: OutputDtype, block: int
) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    monkeypatch.setattr(module, "_QUERIES", 13)
    rows_ND, most = hidden_structure(1500, 64), 7
    forms = [Form(dim, dtype) for dim in DIMS]
    own_Q = torch.arange(30)
    for form, found_QK in zip(forms, nearest_each(rows_ND[:30], rows_ND, forms, most, own_Q), strict=True):
        kept_Nd = in_form(rows_ND, form).double().numpy()
        distances, _ = NearestNeighbors(n_neighbors=most + 1, metric="cosine").fit(kept_Nd).kneighbors(kept_Nd[:30])
        assert not (found_QK == own_Q[:, None]).any()
        assert all(len(set(places)) == most for places in found_QK.tolist())
        cosines_QK = np.einsum("qd,qkd->qk", kept_Nd[:30], kept_Nd[found_QK.numpy()])
        # Equal scores may stand in any order, and bits are often equal: what must agree are the cosines found.
        np.testing.assert_allclose(cosines_QK, 1 - distances[:, 1:], atol=3e-7)


def test_a_sweep_says_the_same_as_one_form_alone() -> None:
    task = sampled(Rows(hidden_structure(5000, 64)), 10, 50)
    for family in families(Form(dim, dtype) for dim in DIMS for dtype in DTYPES):
        heard: list[float] = []
        for form, outcome in zip(family, task.measure_each(family, heard.append), strict=True):
            assert outcome.value == pytest.approx(task.measure(form).value, abs=0.01)
            assert outcome.resampled_R.shape == (1000,)
        assert heard == sorted(heard)
        assert heard[-1] == 1


def test_a_row_of_zeros_after_the_cut_is_no_ones_neighbour_by_accident() -> None:
    rows_ND = torch.eye(64)[:40]
    found_QK = nearest(rows_ND[:3], rows_ND, Form(32, OutputDtype.FLOAT32), 1)
    assert found_QK[:, 0].tolist() == [0, 1, 2]


@given(st.integers(0, 2**31), st.integers(1, 12), st.sampled_from([32, 640, 1024, 1000]))
def test_the_best_of_groups_are_the_best(seed: int, most: int, count: int) -> None:
    scores_QB = torch.randn(3, count, generator=torch.Generator().manual_seed(seed))
    best_QK, where_QK = module._top(scores_QB, most)
    expected = np.argsort(-scores_QB.numpy(), axis=1)[:, :most]
    np.testing.assert_array_equal(where_QK, expected)
    assert torch.equal(scores_QB.gather(1, where_QK), best_QK)


def test_pieces_come_in_order_on_one_thread_each() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        names = set()

        def work(piece: int) -> tuple[int, int]:
            names.add(threading.current_thread().name)
            return piece, torch.get_num_threads()

        assert list(in_order(work, range(20))) == [(piece, 1) for piece in range(20)]
        assert len(names) <= 3
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_nothing_is_begun_after_an_error() -> None:
    begun: list[int] = []

    def work(piece: int) -> int:
        begun.append(piece)
        if piece == 2:
            raise KeyboardInterrupt
        threading.Event().wait(0.01)
        return piece

    with pytest.raises(KeyboardInterrupt):
        list(in_order(work, range(1000)))
    assert len(begun) < 1000

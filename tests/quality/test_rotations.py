"""Ways of fitting a rotation: what each must be, whatever the rows."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anydim.quality.rotations import METHODS, _for_signs, by_moment, by_neighbours, by_spread
from tests.quality.rows import hidden_structure


def test_the_plain_way_is_an_uncentred_svd() -> None:
    rows_ND = hidden_structure(300, 40) + 0.3  # with a common direction, so that centring would show
    _, _, axes_DD = np.linalg.svd(rows_ND.double().numpy(), full_matrices=True)
    cosines_D = np.abs((by_moment(rows_ND).double().numpy() * axes_DD.T).sum(axis=0))
    np.testing.assert_allclose(cosines_D, 1, atol=1e-5)


def test_spread_puts_what_is_common_last() -> None:
    common_D = torch.nn.functional.normalize(torch.ones(40), dim=0)
    rows_ND = hidden_structure(500, 40, decay=1.0) * 0.05 + common_D
    assert (by_moment(rows_ND)[:, 0] @ common_D).abs() > 0.99
    spread_DD = by_spread(rows_ND - (rows_ND @ common_D)[:, None] * common_D + common_D)
    assert (spread_DD[:, -1] @ common_D).abs() > 0.99


@pytest.mark.parametrize("name", METHODS)
@settings(max_examples=5)
@given(count=st.integers(20, 200), width=st.sampled_from([33, 64, 96]), seed=st.integers(0, 2**31))
def test_full_cosines_do_not_change(name: str, count: int, width: int, seed: int) -> None:
    rows_ND = hidden_structure(count, width, seed)
    rotation_DD = METHODS[name](rows_ND, lambda *_: None)
    assert rotation_DD.dtype == torch.float32
    torch.testing.assert_close(rotation_DD @ rotation_DD.T, torch.eye(width), atol=1e-5, rtol=0)
    turned_ND = rows_ND @ rotation_DD
    torch.testing.assert_close(turned_ND @ turned_ND.T, rows_ND @ rows_ND.T, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_the_same_rows_give_the_same_rotation(name: str) -> None:
    rows_ND = hidden_structure(100, 48)
    first_DD, second_DD = (METHODS[name](rows_ND, lambda *_: None) for _ in range(2))
    assert torch.equal(first_DD, second_DD)


@given(seed=st.integers(0, 2**31), dim=st.integers(1, 40))
def test_no_other_axes_hold_more_of_the_rows(seed: int, dim: int) -> None:
    rows_ND = hidden_structure(120, 40, seed)
    other_DD = torch.linalg.qr(torch.randn(40, 40, generator=torch.Generator().manual_seed(seed)))[0]
    held, less, more = (
        float((rows_ND @ axes_DD[:, :count]).square().sum())
        for axes_DD, count in ((by_moment(rows_ND), dim), (other_DD, dim), (by_moment(rows_ND), dim + 1))
    )
    assert less <= held * (1 + 1e-5)
    assert held <= more * (1 + 1e-5)


@pytest.mark.parametrize("common", [0.0, 0.3])
def test_near_the_full_width_cuts_of_the_learned_one_hold_what_those_of_svd_hold(common: float) -> None:
    rows_ND = torch.nn.functional.normalize(hidden_structure(300, 96) + common)
    learned_ND, plain_ND = rows_ND @ by_neighbours(rows_ND), rows_ND @ by_moment(rows_ND)
    for dim in (80, 88, 96):
        cut_Nd, plain_Nd = (torch.nn.functional.normalize(full_ND[:, :dim]) for full_ND in (learned_ND, plain_ND))
        torch.testing.assert_close(cut_Nd @ cut_Nd.T, plain_Nd @ plain_Nd.T, atol=1e-4, rtol=0)


def test_what_documents_have_in_common_is_one_component_with_which_a_step_ends() -> None:
    common_D = torch.nn.functional.normalize(torch.ones(96), dim=0)
    rows_ND = torch.nn.functional.normalize(hidden_structure(300, 96) * 0.5 + common_D)
    turned_ND = rows_ND @ by_neighbours(rows_ND)
    common, *others = turned_ND.mean(dim=0)[[63, *range(63), *range(64, 80)]].abs()
    assert common > 0.5
    assert max(others) < 1e-4


@settings(max_examples=5)
@given(sizes=st.sampled_from([(31, 31), (64, 64), (79, 63)]), seed=st.integers(0, 2**31))
def test_what_makes_signs_say_more_changes_no_cut_between_steps(sizes: tuple[int, int], seed: int) -> None:
    width, before = sizes
    rows_NK = torch.nn.functional.normalize(torch.randn(400, width, generator=torch.Generator().manual_seed(seed)))
    rows_NK = rows_NK * 0.9 ** torch.arange(width)
    turned_NK = rows_NK @ _for_signs(rows_NK, torch.eye(width), before)
    for dim in (*range(32, before, 32), *range(before, width, 32), width):
        plain_Nd, turned_Nd = rows_NK[:, :dim], turned_NK[:, :dim]
        torch.testing.assert_close(turned_Nd @ turned_Nd.T, plain_Nd @ plain_Nd.T, atol=1e-5, rtol=0)
        far, farther = ((part_Nd - part_Nd.sign() * part_Nd.abs().mean()).norm() for part_Nd in (turned_Nd, plain_Nd))
        assert far < farther

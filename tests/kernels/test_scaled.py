"""8-bit rows in plain torch: how far they are from what they stand for, and their products."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anydim.kernels import plain_ops

FP8 = torch.float8_e4m3fn
PLAIN = plain_ops()


@given(rows=st.integers(1, 9), columns=st.integers(1, 70), scale=st.floats(1e-6, 1e6), seed=st.integers(0, 99))
@pytest.mark.parametrize("dtype", [FP8, torch.int8])
def test_rows_stand_for_what_they_were(rows: int, columns: int, scale: float, seed: int, dtype: torch.dtype) -> None:
    """Half a step: of the whole row in int8; in float8 of each value, down to the smallest that the format has."""
    x_RC = scale * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    error_RC = (PLAIN.quantize_rows(x_RC, dtype).dequantize() - x_RC).abs()
    peak_R1 = x_RC.abs().amax(1, keepdim=True)
    if dtype is torch.int8:
        assert (error_RC <= peak_R1 / 127 * 0.5001).all()
    else:
        assert (error_RC <= torch.maximum(x_RC.abs() / 16, peak_R1 / 448 * 2**-10) * 1.001).all()


@pytest.mark.parametrize("dtype", [FP8, torch.int8])
@pytest.mark.parametrize("bias", [True, False])
def test_product_is_that_of_what_is_stood_for(dtype: torch.dtype, bias: bool) -> None:
    rng = torch.Generator().manual_seed(3)
    x, weight = (PLAIN.quantize_rows(torch.randn(n, 50, generator=rng), dtype) for n in (7, 30))
    bias_O = torch.randn(30, generator=rng) if bias else None
    wanted_TO = torch.nn.functional.linear(
        x.dequantize().double(), weight.dequantize().double(), None if bias_O is None else bias_O.double()
    )
    torch.testing.assert_close(PLAIN.scaled_mm(x, weight, bias_O, torch.float32).double(), wanted_TO, atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [FP8, torch.int8])
def test_what_is_not_finite_is_not_hidden(dtype: torch.dtype) -> None:
    x_RC = torch.ones(3, 8)
    x_RC[1, 2], x_RC[2, 3] = float("nan"), float("-inf")
    weight = PLAIN.quantize_rows(torch.ones(4, 8), dtype)
    out_RO = PLAIN.scaled_mm(PLAIN.quantize_rows(x_RC, dtype), weight, None, torch.float32)
    assert torch.isfinite(out_RO).all(1).tolist() == [True, False, False]

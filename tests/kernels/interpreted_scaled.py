"""The kernels of 8-bit rows against their plain twins on CPU, through Triton's interpreter.

Not collected with the other tests, as interpreted.py is not. In int8 alone: the interpreter's float8 is wrong, and
test_scaled_gpu.py checks it. By hand:
TRITON_INTERPRET=1 pytest tests/kernels/interpreted_scaled.py
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anydim.kernels import Scaled, fused, plain_ops, triton_ops
from anydim.kernels.fused_triton import FusedKernels

PLAIN, TRITON = plain_ops(), triton_ops()
STEPS = FusedKernels(torch.device("cpu"))
INT8 = torch.int8
EPS = 1e-6

pytestmark = pytest.mark.usefixtures("poisoned")


def normal(rng: torch.Generator, *size: int) -> Tensor:
    return torch.randn(size, generator=rng)


def assert_same_rows(found: Scaled, wanted: Scaled) -> None:
    """Equal scales and values, but for halves, which may round either way."""
    torch.testing.assert_close(found.scale_R, wanted.scale_R, atol=0, rtol=1e-6)
    gap_RC = (found.values_RC.int() - wanted.values_RC.int()).abs()
    assert gap_RC.max() <= 1
    assert gap_RC.float().mean() < 0.01


@pytest.mark.parametrize(("rows", "width"), [(5, 1), (3, 100), (2, 257)])
def test_rows(rows: int, width: int, rng: torch.Generator) -> None:
    x_TD = normal(rng, rows, width + 3)[:, :width] * 5
    residual_TD, weight_D = normal(rng, rows, width), normal(rng, width)
    assert_same_rows(TRITON.quantize_rows(x_TD, INT8), PLAIN.quantize_rows(x_TD, INT8))
    assert_same_rows(
        TRITON.rms_norm_scaled(x_TD, weight_D, EPS, INT8), PLAIN.rms_norm_scaled(x_TD, weight_D, EPS, INT8)
    )
    found, sum_TD = TRITON.add_rms_norm_scaled(x_TD, residual_TD.clone(), weight_D, EPS, INT8)
    wanted, wanted_sum_TD = PLAIN.add_rms_norm_scaled(x_TD, residual_TD, weight_D, EPS, INT8)
    assert_same_rows(found, wanted)
    assert torch.equal(sum_TD, wanted_sum_TD)


@pytest.mark.parametrize("width", [1, 70, 300])
def test_silu_mul(width: int, rng: torch.Generator) -> None:
    gate_up_TF = normal(rng, 3, 2 * width) * 4
    assert_same_rows(TRITON.silu_mul_scaled(gate_up_TF, INT8), PLAIN.silu_mul_scaled(gate_up_TF, INT8))


def test_rows_of_zeros_and_rows_that_are_not_finite(rng: torch.Generator) -> None:
    x_RC = normal(rng, 4, 33)
    x_RC[1], x_RC[2, 5], x_RC[3, 32] = 0.0, float("nan"), float("inf")
    weight = PLAIN.quantize_rows(normal(rng, 40, 33), INT8)
    out_RO = PLAIN.scaled_mm(TRITON.quantize_rows(x_RC, INT8), weight, None, torch.float32)
    assert torch.isfinite(out_RO).all(1).tolist() == [True, True, False, False]
    assert not out_RO[1].any()


def test_no_rows_is_no_launch() -> None:
    none_RC, weight_C = torch.zeros(0, 32), torch.ones(32)
    for found in (
        TRITON.quantize_rows(none_RC, INT8),
        TRITON.rms_norm_scaled(none_RC, weight_C, EPS, INT8),
        TRITON.silu_mul_scaled(torch.zeros(0, 64), INT8),
    ):
        assert found.shape == (0, 32)
        weight = PLAIN.quantize_rows(torch.ones(16, 32), INT8)
        assert TRITON.scaled_mm(found, weight, None, torch.float32).shape == (0, 16)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("tokens", "into", "out"), [(1, 40, 17), (70, 100, 33), (150, 260, 300)])
def test_int8_product(tokens: int, into: int, out: int, bias: bool, rng: torch.Generator) -> None:
    x = PLAIN.quantize_rows(normal(rng, tokens, into), INT8)
    weight = PLAIN.quantize_rows(normal(rng, out, into), INT8)
    bias_O = normal(rng, out) if bias else None
    found_TO = TRITON.scaled_mm(x, weight, bias_O, torch.float32)
    torch.testing.assert_close(found_TO, PLAIN.scaled_mm(x, weight, bias_O, torch.float32), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("tokens", "width", "inner"), [(3, 64, 64), (20, 576, 80), (64, 144, 208)])
def test_few_tokens_in_int8(tokens: int, width: int, inner: int, rng: torch.Generator) -> None:
    """The fused steps take what is scaled, and scale what is not."""
    stream_TD, norm_D = normal(rng, tokens, width) * 3, normal(rng, width)
    gate_up, down = (
        PLAIN.quantize_rows(normal(rng, *shape) / shape[1] ** 0.5, INT8)
        for shape in ((2 * inner, width), (width, inner))
    )
    normed = STEPS.rms_norm(stream_TD, norm_D, EPS, INT8)
    assert isinstance(normed, Scaled)
    gated_TG = STEPS.gate_up(normed, gate_up).float()
    wanted_TG = fused.gate_up(normed.dequantize(), gate_up.dequantize())
    torch.testing.assert_close(gated_TG, wanted_TG, atol=0.03, rtol=0.02)  # comes out in bfloat16
    for _ in range(2):  # the second time finds the counters that the first one left
        found_TD, wanted_TD = stream_TD.clone(), stream_TD.clone()
        STEPS.linear_add_(gated_TG, down, found_TD)
        fused.linear_add_(TRITON.quantize_rows(gated_TG, INT8).dequantize(), down.dequantize(), wanted_TD)
        torch.testing.assert_close(found_TD, wanted_TD, atol=1e-3, rtol=1e-4)

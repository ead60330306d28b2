"""8-bit rows and their products on a GPU, at full size and odd sizes, against the plain twins."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anydim.kernels import Scaled, plain_ops, select_ops

FP8 = torch.float8_e4m3fn
PLAIN = plain_ops()
EPS = 1e-6
HAS_FP8 = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 9)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.usefixtures("poisoned"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # torch says which products the poisoning makes slower
]
DTYPES = [
    pytest.param(FP8, marks=pytest.mark.skipif(not HAS_FP8, reason="this GPU has no fp8 products")),
    torch.int8,
]


def normal(*size: int) -> Tensor:
    return torch.randn(size, device="cuda").bfloat16()


def off(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def assert_same_rows(found: Scaled, wanted: Scaled) -> None:
    """The sums of a norm are added in another order, so a value in a thousand may fall on the other side."""
    torch.testing.assert_close(found.scale_R, wanted.scale_R, atol=0, rtol=1e-5)
    assert (found.values_RC.float() != wanted.values_RC.float()).float().mean() < 2e-3
    assert off(found.dequantize(), wanted.dequantize()) < 2e-3


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [2560, 9728, 12288, 1024, 100])
def test_rows(width: int, dtype: torch.dtype) -> None:
    ops = select_ops(torch.device("cuda", 0), torch.bfloat16)
    x_TD, residual_TD, weight_D, gate_up_TF = normal(77, width), normal(77, width), normal(width), normal(77, 2 * width)
    assert_same_rows(ops.quantize_rows(x_TD, dtype), PLAIN.quantize_rows(x_TD, dtype))
    assert_same_rows(ops.rms_norm_scaled(x_TD, weight_D, EPS, dtype), PLAIN.rms_norm_scaled(x_TD, weight_D, EPS, dtype))
    found, sum_TD = ops.add_rms_norm_scaled(x_TD, residual_TD.clone(), weight_D, EPS, dtype)
    wanted, wanted_sum_TD = PLAIN.add_rms_norm_scaled(x_TD, residual_TD, weight_D, EPS, dtype)
    assert_same_rows(found, wanted)
    assert torch.equal(sum_TD, wanted_sum_TD)
    assert_same_rows(ops.silu_mul_scaled(gate_up_TF, dtype), PLAIN.silu_mul_scaled(gate_up_TF, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [1, 65, 513, 4099])
@pytest.mark.parametrize(("into", "out"), [(2560, 6144), (9728, 2560), (1024, 2048), (96, 112)])
def test_products(tokens: int, into: int, out: int, dtype: torch.dtype) -> None:
    ops = select_ops(torch.device("cuda", 0), torch.bfloat16)
    x, weight = ops.quantize_rows(normal(tokens, into), dtype), ops.quantize_rows(normal(out, into), dtype)
    bias_O = normal(out)
    found_TO = ops.scaled_mm(x, weight, bias_O, torch.bfloat16)
    assert off(found_TO, PLAIN.scaled_mm(x, weight, bias_O, torch.float32)) < 1e-2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tokens", [1, 16, 33, 64])
@pytest.mark.parametrize(("width", "inner"), [(2560, 9728), (1024, 3072), (320, 400)])
def test_few_tokens(tokens: int, width: int, inner: int, dtype: torch.dtype) -> None:
    ops = select_ops(torch.device("cuda", 0), torch.bfloat16)
    steps = ops.fused
    assert steps is not None, "Triton runs on every GPU that these tests are for"
    stream_TD, norm_D = 30 * normal(tokens, width), normal(width)
    qkv, gate_up, down = (
        ops.quantize_rows(normal(*shape), dtype) for shape in ((2 * width, width), (2 * inner, width), (width, inner))
    )
    normed = steps.rms_norm(stream_TD, norm_D, EPS, dtype)
    assert isinstance(normed, Scaled)
    wanted_TO = normed.dequantize() @ qkv.dequantize().t()
    assert off(steps.linear(normed, qkv), wanted_TO) < 1e-2
    gated_TG = steps.gate_up(normed, gate_up)
    assert off(gated_TG, PLAIN.silu_mul(normed.dequantize() @ gate_up.dequantize().t())) < 1e-2
    rows = PLAIN.quantize_rows(gated_TG, dtype)
    for _ in range(3):  # later launches find the counters that the first one left
        sum_TD = stream_TD.clone()
        steps.linear_add_(gated_TG, down, sum_TD)
        assert off(sum_TD, stream_TD.float() + rows.dequantize() @ down.dequantize().t()) < 1e-2


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_is_not_hidden(dtype: torch.dtype) -> None:
    ops = select_ops(torch.device("cuda", 0), torch.bfloat16)
    x_TD = normal(70, 128)
    x_TD[3, 5], x_TD[66, 127] = float("nan"), float("inf")
    weight = ops.quantize_rows(normal(64, 128), dtype)
    finite_T = torch.isfinite(ops.scaled_mm(ops.quantize_rows(x_TD, dtype), weight, None, torch.bfloat16)).all(1)
    assert [row for row in range(70) if not finite_T[row]] == [3, 66]

"""The kernels of a forward of few tokens against their plain twins on CPU, through Triton's interpreter, in float32.

Not collected with the other tests, as interpreted.py is not. By hand:
TRITON_INTERPRET=1 pytest tests/kernels/interpreted_fused.py
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anydim.kernels import fused, make_plan, norm, place_plan, rope_tables, tile_shape
from anydim.kernels.fused_triton import FusedKernels

EXACT = {"atol": 2e-5, "rtol": 1e-5}
EPS = 1e-6
TRITON = FusedKernels(torch.device("cpu"))

pytestmark = pytest.mark.usefixtures("poisoned")


def normal(rng: torch.Generator, *size: int) -> Tensor:
    return torch.randn(size, generator=rng)


@pytest.mark.parametrize(("tokens", "width", "out"), [(1, 64, 64), (17, 96, 80), (32, 256, 192), (64, 320, 48)])
def test_norm_and_linear(rng: torch.Generator, tokens: int, width: int, out: int) -> None:
    x, weight_D, weight = normal(rng, tokens, width) * 3, normal(rng, width), normal(rng, out, width)
    normed = norm.rms_norm(x, weight_D, EPS)
    torch.testing.assert_close(TRITON.rms_norm(x, weight_D, EPS), normed, **EXACT)
    torch.testing.assert_close(TRITON.linear(normed, weight), fused.linear(normed, weight), **EXACT)


@pytest.mark.parametrize(("tokens", "width", "inner"), [(3, 64, 64), (20, 192, 72), (64, 128, 200)])
def test_gate_up(rng: torch.Generator, tokens: int, width: int, inner: int) -> None:
    x, weight = normal(rng, tokens, width), normal(rng, 2 * inner, width) / width**0.5
    torch.testing.assert_close(TRITON.gate_up(x, weight), fused.gate_up(x, weight), **EXACT)


@pytest.mark.parametrize(("tokens", "inner", "width"), [(1, 128, 64), (9, 640, 96), (33, 1024, 64), (64, 2304, 200)])
def test_linear_add(rng: torch.Generator, tokens: int, inner: int, width: int) -> None:
    x, weight, residual = normal(rng, tokens, inner), normal(rng, width, inner) / inner**0.5, normal(rng, tokens, width)
    for _ in range(2):  # the second time finds the counters that the first one left
        wanted, found = residual.clone(), residual.clone()
        fused.linear_add_(x, weight, wanted)
        TRITON.linear_add_(x, weight, found)
        torch.testing.assert_close(found, wanted, **EXACT)


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(2, 2, 32), (4, 1, 64), (16, 8, 32), (3, 1, 16)])
def test_attend_raw(rng: torch.Generator, heads: int, kv_heads: int, head_dim: int) -> None:
    lengths = [19, 11, 7, 1, 1]
    total = sum(lengths)
    block = normal(rng, total, (heads + 2 * kv_heads) * head_dim)
    positions = torch.cat([torch.arange(length) for length in lengths]).int()
    norms = (normal(rng, head_dim), normal(rng, head_dim))
    tables = rope_tables(head_dim, 1e4, 64, "cpu")
    shape = tile_shape(total, heads, kv_heads, itemsize=4)
    plan = place_plan(make_plan(lengths, shape, n_texts=8, n_tiles=20, max_length=64), "cpu")
    found = TRITON.attend_raw(block, positions, norms, tables, plan, heads, kv_heads, EPS)
    wanted = fused.attend_raw(block.clone(), positions, norms, tables, plan, heads, kv_heads, EPS)
    torch.testing.assert_close(found, wanted, **EXACT)

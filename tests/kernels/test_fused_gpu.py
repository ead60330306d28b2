"""The kernels of a forward of few tokens on a GPU, in bfloat16, against their plain twins in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from anydim.heads.dimension import finish, select_finish
from anydim.kernels import fused, make_plan, norm, place_plan, rope_tables, select_ops, tile_shape

if TYPE_CHECKING:
    from anydim.kernels.fused_triton import FusedKernels

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.usefixtures("poisoned"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # torch says which products the poisoning makes slower
]

EPS = 1e-6
SHAPES = [(2560, 9728), (1024, 3072), (320, 400)]
TOKENS = [1, 16, 33, 64]


@pytest.fixture(scope="module")
def steps() -> FusedKernels:
    chosen = select_ops(torch.device("cuda", 0), torch.bfloat16).fused
    assert chosen is not None, "Triton runs on every GPU that these tests are for"
    return chosen


def normal(*size: int) -> Tensor:
    return torch.randn(size, device="cuda").bfloat16()


def off(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize(("width", "inner"), SHAPES)
def test_products(steps: FusedKernels, tokens: int, width: int, inner: int) -> None:
    x_TD, norm_D = 30 * normal(tokens, width), normal(width)
    qkv_OD, gate_up_FD, down_DG = normal(2 * width, width), normal(2 * inner, width) / width**0.5, normal(width, inner)
    normed_TD = steps.rms_norm(x_TD, norm_D, EPS)
    assert off(normed_TD, norm.rms_norm(x_TD.float(), norm_D.float(), EPS)) < 5e-3
    assert off(steps.linear(normed_TD, qkv_OD), fused.linear(normed_TD.float(), qkv_OD.float())) < 5e-3
    gated_TG = steps.gate_up(normed_TD, gate_up_FD)
    assert off(gated_TG, fused.gate_up(normed_TD.float(), gate_up_FD.float())) < 8e-3
    for _ in range(3):  # later launches find the counters that the first one left
        sum_TD, wanted_TD = x_TD.clone(), x_TD.float()
        steps.linear_add_(gated_TG, down_DG, sum_TD)
        fused.linear_add_(gated_TG.float(), down_DG.float(), wanted_TD)
        assert off(sum_TD, wanted_TD) < 5e-3


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(32, 8, 128), (16, 8, 128), (6, 2, 64)])
@pytest.mark.parametrize("lengths", [[1], [32], [64], [17, 16, 16, 8, 5, 1, 1]])
def test_attention(steps: FusedKernels, heads: int, kv_heads: int, head_dim: int, lengths: list[int]) -> None:
    block_TC = normal(sum(lengths), (heads + 2 * kv_heads) * head_dim)
    positions_T = torch.cat([torch.arange(length) for length in lengths]).int().cuda()
    norms_EE, tables_PF = (normal(head_dim), normal(head_dim)), rope_tables(head_dim, 1e6, 64, "cuda")
    shape = tile_shape(64, heads, kv_heads)
    plan = place_plan(make_plan(lengths, shape, n_texts=32, n_tiles=100, max_length=64), "cuda")
    found_TO = steps.attend_raw(block_TC, positions_T, norms_EE, tables_PF, plan, heads, kv_heads, EPS)
    exact_EE = (norms_EE[0].float(), norms_EE[1].float())
    wanted_TO = fused.attend_raw(block_TC.float(), positions_T, exact_EE, tables_PF, plan, heads, kv_heads, EPS)
    assert off(found_TO, wanted_TO) < 1e-2


@pytest.mark.parametrize("width", [32, 1024, 2560])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_dimension_head(width: int, dtype: torch.dtype) -> None:
    pooled_BD = (50 * torch.randn(9, width, device="cuda")).to(dtype)
    pooled_BD[3], pooled_BD[5, 7], pooled_BD[6, 31] = 0.0, float("nan"), float("inf")
    dims_B = torch.randint(1, width + 1, (9,), device="cuda", dtype=torch.int32)
    dims_B[5], dims_B[6] = width, width
    unit_B = torch.tensor([1, 0] * 4 + [1], device="cuda", dtype=torch.int32)
    found_BE = select_finish(torch.device("cuda", 0))(pooled_BD, dims_B, unit_B, width)
    wanted_BE = finish(pooled_BD, dims_B, unit_B, width)
    good = [row for row in range(9) if row not in (5, 6)]
    torch.testing.assert_close(found_BE[good], wanted_BE[good], atol=1e-6, rtol=1e-6)
    assert found_BE[:, -1].tolist() == [1, 1, 1, 1, 1, 0, 0, 1, 1]

"""The Triton kernels on a GPU, in bfloat16, against their plain twins in float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from anydim.kernels import make_plan, place_plan, plain_ops, rope_tables, select_ops, tile_bound, tile_shape

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.usefixtures("poisoned"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # torch says which products the poisoning makes slower
]

PLAIN = plain_ops()
LENGTHS = {16: [16, 7, 1, 1], 64: [64, 33, 33, 2, 1], 512: [511, 130, 64, 5], 4096: [3001, 513, 17, 1]}
EPS = 1e-6


def normal(*size: int) -> Tensor:
    return torch.randn(size, device="cuda").bfloat16()


def off(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def test_elementwise_kernels() -> None:
    ops = select_ops(torch.device("cuda"), torch.bfloat16)
    x_TD, residual_TD, weight_D, gate_up_TF = normal(77, 2560), normal(77, 2560), normal(2560), normal(77, 2 * 9728)
    assert off(ops.rms_norm(x_TD, weight_D, EPS), PLAIN.rms_norm(x_TD.float(), weight_D, EPS)) < 5e-3
    wanted_TD, sum_TD = PLAIN.add_rms_norm(x_TD.float(), residual_TD.float(), weight_D, EPS)
    assert off(ops.add_rms_norm(x_TD, residual_TD, weight_D, EPS)[0], wanted_TD) < 5e-3
    assert off(residual_TD, sum_TD) < 5e-3
    assert off(ops.silu_mul(gate_up_TF), PLAIN.silu_mul(gate_up_TF.float())) < 5e-3


def test_qk_norm_rope() -> None:
    ops = select_ops(torch.device("cuda"), torch.bfloat16)
    qkv_TC, weight_E = normal(77, 48 * 128), normal(128)
    positions_T = torch.randint(0, 4096, (77,), device="cuda", dtype=torch.int32)
    args = (positions_T, weight_E, weight_E, *rope_tables(128, 1e6, 4096, "cuda"), 32, 8, EPS)
    wanted_TC = qkv_TC.float()
    PLAIN.qk_norm_rope_(wanted_TC, *args)
    ops.qk_norm_rope_(qkv_TC, *args)
    assert off(qkv_TC, wanted_TC) < 5e-3


@pytest.mark.parametrize("lengths", [[4096], [6000, 17, 4096, 4096], [9001, 300]])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(32, 8, 128), (16, 8, 128), (4, 2, 64)])
def test_long_texts(lengths: list[int], heads: int, kv_heads: int, head_dim: int) -> None:
    """Dense parts and what is left of them, beside short texts."""
    ops, lengths = select_ops(torch.device("cuda", 0), torch.bfloat16), sorted(lengths)
    if ops.attend_long is None:
        pytest.skip("this GPU's cuDNN has no dense kernel for it")
    plan = place_plan(make_plan(lengths, tile_shape(max(lengths), heads, kv_heads), dense=True), "cuda")
    assert plan.dense
    qkv_TC = normal(sum(lengths), (heads + 2 * kv_heads) * head_dim)
    wanted_TO = PLAIN.attend(qkv_TC.float(), plan, heads, kv_heads, 0.1, True)
    assert off(ops.attend_long(qkv_TC, plan, heads, kv_heads, 0.1, True), wanted_TO) < 1e-2


@pytest.mark.parametrize("lengths", [[40], [512], [1, 33, 200], [1024], [32] * 32])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(32, 8, 128), (16, 8, 128), (12, 12, 64), (12, 12, 32)])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_of_a_small_batch(lengths: list[int], heads: int, kv_heads: int, head_dim: int, causal: bool) -> None:
    ops, total = select_ops(torch.device("cuda"), torch.bfloat16), sum(lengths)
    shape = tile_shape(total, heads, kv_heads, is_small=True)
    tiles = tile_bound(total, len(lengths) + 2, shape)
    plan = place_plan(make_plan(lengths, shape, n_texts=len(lengths) + 2, n_tiles=tiles), "cuda")
    qkv_TC = normal(total, (heads + 2 * kv_heads) * head_dim)
    wanted_TO = PLAIN.attend(qkv_TC.float(), plan, heads, kv_heads, 0.1, causal)
    assert off(ops.attend(qkv_TC, plan, heads, kv_heads, 0.1, causal), wanted_TO) < 1e-2


@pytest.mark.parametrize("longest", sorted(LENGTHS))
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(32, 8, 128), (16, 8, 128), (12, 12, 64), (12, 12, 32)])
@pytest.mark.parametrize("without", [frozenset(), frozenset({"attend", "attend_rows"})], ids=["triton", "flash"])
def test_attention(
    longest: int, causal: bool, heads: int, kv_heads: int, head_dim: int, without: frozenset[str]
) -> None:
    ops = select_ops(torch.device("cuda"), torch.bfloat16, without)
    lengths = LENGTHS[longest]
    total, slots, shape = sum(lengths), len(lengths) + 2, tile_shape(longest, heads, kv_heads)
    plan = place_plan(make_plan(lengths, shape, n_texts=slots, n_tiles=tile_bound(total, slots, shape)), "cuda")
    qkv_TC = normal(total, (heads + 2 * kv_heads) * head_dim)
    wanted_TO = PLAIN.attend(qkv_TC.float(), plan, heads, kv_heads, 0.1, causal)
    assert off(ops.attend(qkv_TC, plan, heads, kv_heads, 0.1, causal), wanted_TO) < 1e-2
    q_RO = normal(len(lengths), heads * head_dim)
    wanted_RO = PLAIN.attend_rows(q_RO.float(), qkv_TC.float(), plan, heads, kv_heads, 0.1)
    assert off(ops.attend_rows(q_RO, qkv_TC, plan, heads, kv_heads, 0.1), wanted_RO) < 1e-2

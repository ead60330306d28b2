"""The plain functions equal transformers' own Qwen3 modules in float32."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.models.qwen3 import Qwen3Config, modeling_qwen3

from anydim.kernels import AttentionPlan, make_plan, plain_ops, rope_tables, tile_shape
from anydim.types import Prefixes

OPS = plain_ops()
LENGTHS = [40, 17, 17, 17, 5, 1, 1]
GEOMETRIES = [(8, 2, 32), (4, 4, 64), (2, 1, 128), (6, 2, 32)]


def plan_of(lengths: list[int]) -> AttentionPlan:
    return make_plan(lengths, tile_shape(max(lengths, default=1), 1, 1))


def reference_norm(weight_D: Tensor, eps: float) -> torch.nn.Module:
    norm = modeling_qwen3.Qwen3RMSNorm(len(weight_D), eps=eps)
    norm.weight.data.copy_(weight_D)
    return norm


def reference_attention(qkv_TC: Tensor, lengths: list[int], heads: int, kv_heads: int, causal: bool) -> Tensor:
    """transformers' eager attention, one text at a time."""
    module = SimpleNamespace(num_key_value_groups=heads // kv_heads, training=False)
    outputs = []
    for text_LC in qkv_TC.split(lengths):
        heads_1HLE = text_LC.unflatten(1, (heads + 2 * kv_heads, -1)).transpose(0, 1)[None]
        q, k, v = heads_1HLE.split((heads, kv_heads, kv_heads), dim=1)
        length = len(text_LC)
        mask_LL = torch.full((length, length), float("-inf")).triu(1) if causal else torch.zeros(length, length)
        out_1LHE, _ = modeling_qwen3.eager_attention_forward(module, q, k, v, mask_LL[None, None], scaling=0.2)
        outputs.append(out_1LHE[0].flatten(1))
    return torch.cat(outputs)


@pytest.mark.parametrize("width", [1, 100, 256])
def test_rms_norm_equals_qwen3s(width: int, rng: torch.Generator) -> None:
    x_TD, weight_D = torch.randn(7, width, generator=rng), torch.randn(width, generator=rng)
    torch.testing.assert_close(
        OPS.rms_norm(x_TD, weight_D, 1e-6), reference_norm(weight_D, 1e-6)(x_TD), atol=1e-6, rtol=1e-6
    )


def test_add_rms_norm_updates_the_residual_and_normalises_it(rng: torch.Generator) -> None:
    x_TD, residual_TD, weight_D = (torch.randn(*n, generator=rng) for n in ((5, 64), (5, 64), (64,)))
    wanted_TD = x_TD + residual_TD
    y_TD, returned_TD = OPS.add_rms_norm(x_TD, residual_TD, weight_D, 1e-6)
    assert returned_TD is residual_TD
    torch.testing.assert_close(residual_TD, wanted_TD, atol=0, rtol=0)
    torch.testing.assert_close(y_TD, reference_norm(weight_D, 1e-6)(wanted_TD), atol=1e-6, rtol=1e-6)


def test_bfloat16_rounds_once(rng: torch.Generator) -> None:
    x_TD, weight_D = torch.randn(9, 64, generator=rng).bfloat16(), torch.randn(64, generator=rng).bfloat16()
    exact_TD = OPS.rms_norm(x_TD.double(), weight_D.double(), 1e-6)
    torch.testing.assert_close(OPS.rms_norm(x_TD, weight_D, 1e-6), exact_TD.bfloat16(), atol=0, rtol=2**-7)
    gate_up_TF = torch.randn(4, 32, generator=rng).bfloat16()
    torch.testing.assert_close(OPS.silu_mul(gate_up_TF), OPS.silu_mul(gate_up_TF.float()).bfloat16(), atol=0, rtol=0)


def test_silu_mul_is_the_inside_of_qwen3s_mlp(rng: torch.Generator) -> None:
    mlp = modeling_qwen3.Qwen3MLP(Qwen3Config(hidden_size=12, intermediate_size=20, hidden_act="silu"))
    x_TD = torch.randn(6, 12, generator=rng)
    gate_up_TF = torch.cat((mlp.gate_proj(x_TD), mlp.up_proj(x_TD)), dim=-1)
    torch.testing.assert_close(mlp.down_proj(OPS.silu_mul(gate_up_TF)), mlp(x_TD), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), GEOMETRIES)
@pytest.mark.parametrize("normed", [True, False])
def test_qk_norm_rope_equals_qwen3s(
    heads: int, kv_heads: int, head_dim: int, normed: bool, rng: torch.Generator
) -> None:
    config = Qwen3Config(
        hidden_size=heads * head_dim, head_dim=head_dim, num_attention_heads=heads,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )  # fmt: skip
    positions_T = torch.tensor([0, 1, 2, 3, 0, 7, 511, 4095])
    cos, sin = modeling_qwen3.Qwen3RotaryEmbedding(config)(torch.zeros(1), positions_T[None])
    qkv_TC = torch.randn(8, (heads + 2 * kv_heads) * head_dim, generator=rng)
    weights = torch.randn(2, head_dim, generator=rng) if normed else None
    q, k, v = qkv_TC.unflatten(1, (-1, head_dim)).split((heads, kv_heads, kv_heads), dim=1)
    if weights is not None:
        q, k = reference_norm(weights[0], 1e-6)(q), reference_norm(weights[1], 1e-6)(k)
    q, k = modeling_qwen3.apply_rotary_pos_emb(q[None], k[None], cos, sin, unsqueeze_dim=2)
    wanted_TC = torch.cat((q[0], k[0], v), dim=1).flatten(1)
    tables = rope_tables(head_dim, 1e6, 4096, "cpu")
    q_weight_E, k_weight_E = (None, None) if weights is None else weights
    OPS.qk_norm_rope_(qkv_TC, positions_T, q_weight_E, k_weight_E, *tables, heads, kv_heads, 1e-6)
    torch.testing.assert_close(qkv_TC, wanted_TC, atol=1e-6, rtol=1e-6)


def test_queries_and_keys_can_be_rotated_apart(rng: torch.Generator) -> None:
    """A last layer that keeps one query a text has blocks of only q, and of only k and v."""
    tables, weight_E = rope_tables(32, 1e4, 16, "cpu"), torch.randn(32, generator=rng)
    positions_T = torch.arange(5)
    qkv_TC = torch.randn(5, 8 * 32, generator=rng)
    q_TC, kv_TC = qkv_TC[:, : 4 * 32].clone(), qkv_TC[:, 4 * 32 :].clone()
    OPS.qk_norm_rope_(qkv_TC, positions_T, weight_E, weight_E, *tables, 4, 2, 1e-6)
    OPS.qk_norm_rope_(q_TC, positions_T, weight_E, None, *tables, 4, 0, 1e-6)
    OPS.qk_norm_rope_(kv_TC, positions_T, None, weight_E, *tables, 0, 2, 1e-6)
    torch.testing.assert_close(torch.cat((q_TC, kv_TC), dim=1), qkv_TC, atol=0, rtol=0)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), GEOMETRIES)
@pytest.mark.parametrize("causal", [True, False])
def test_attend_equals_eager_attention(
    heads: int, kv_heads: int, head_dim: int, causal: bool, rng: torch.Generator
) -> None:
    qkv_TC = torch.randn(sum(LENGTHS), (heads + 2 * kv_heads) * head_dim, generator=rng)
    found_TO = OPS.attend(qkv_TC, plan_of(LENGTHS), heads, kv_heads, 0.2, causal)
    wanted_TO = reference_attention(qkv_TC, LENGTHS, heads, kv_heads, causal)
    torch.testing.assert_close(found_TO, wanted_TO, atol=2e-6, rtol=1e-6)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), GEOMETRIES)
def test_attend_rows_is_attention_at_the_last_tokens(
    heads: int, kv_heads: int, head_dim: int, rng: torch.Generator
) -> None:
    qkv_TC = torch.randn(sum(LENGTHS), (heads + 2 * kv_heads) * head_dim, generator=rng)
    last_R = torch.tensor(LENGTHS).cumsum(0) - 1
    q_RO = qkv_TC[last_R, : heads * head_dim]
    wanted_RO = reference_attention(qkv_TC, LENGTHS, heads, kv_heads, True)[last_R]
    for block_TC in (qkv_TC, qkv_TC[:, heads * head_dim :]):
        found_RO = OPS.attend_rows(q_RO, block_TC, plan_of(LENGTHS), heads, kv_heads, 0.2)
        torch.testing.assert_close(found_RO, wanted_RO, atol=2e-6, rtol=1e-6)


PREFIX_LENGTHS, PREFIX_OF = [30, 16, 1], [0, 1, 1, 0, -1, 2, 0]


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), GEOMETRIES)
def test_a_shared_prefix_is_attended_by_each_of_its_texts(
    heads: int, kv_heads: int, head_dim: int, rng: torch.Generator
) -> None:
    shared = Prefixes(np.array(PREFIX_LENGTHS, np.int32), np.array(PREFIX_OF, np.int32))
    plan = make_plan(LENGTHS, tile_shape(64, 1, 1), prefixes=shared)
    tokens = sum(LENGTHS)
    qkv_TC = torch.randn(tokens + sum(PREFIX_LENGTHS), (heads + 2 * kv_heads) * head_dim, generator=rng)
    owns = torch.arange(tokens).split(LENGTHS)
    befores = torch.arange(tokens, len(qkv_TC)).split(PREFIX_LENGTHS)
    rows = [torch.cat((befores[of], own)) if of >= 0 else own for of, own in zip(PREFIX_OF, owns, strict=True)]
    rows_T = torch.cat([*rows, befores[2]])
    lengths = [*map(len, rows), len(befores[2])]
    wanted_TO = torch.empty(len(qkv_TC), heads * head_dim)
    wanted_TO[rows_T] = reference_attention(qkv_TC[rows_T], lengths, heads, kv_heads, True)
    found_TO = OPS.attend(qkv_TC, plan, heads, kv_heads, 0.2, True)
    torch.testing.assert_close(found_TO, wanted_TO, atol=5e-6, rtol=1e-6)
    last_R = torch.tensor(LENGTHS).cumsum(0) - 1
    q_RO = qkv_TC[last_R, : heads * head_dim]
    for block_TC in (qkv_TC, qkv_TC[:, heads * head_dim :]):
        found_RO = OPS.attend_rows(q_RO, block_TC, plan, heads, kv_heads, 0.2)
        torch.testing.assert_close(found_RO, wanted_TO[last_R], atol=5e-6, rtol=1e-6)


def test_attend_reads_a_slice_of_a_wider_buffer(rng: torch.Generator) -> None:
    wide_TC = torch.randn(sum(LENGTHS), 8 * 32 + 96, generator=rng)
    narrow_TC = wide_TC[:, 32 : 32 + 8 * 32]
    found_TO = OPS.attend(narrow_TC, plan_of(LENGTHS), 4, 2, 0.2, True)
    torch.testing.assert_close(found_TO, OPS.attend(narrow_TC.contiguous(), plan_of(LENGTHS), 4, 2, 0.2, True))


@pytest.mark.usefixtures("poisoned")
def test_empty_texts_take_part_in_nothing(rng: torch.Generator) -> None:
    lengths = [0, 3, 0, 0, 2]
    qkv_TC = torch.randn(5, 6 * 32, generator=rng)
    found_TO = OPS.attend(qkv_TC, plan_of(lengths), 2, 2, 0.2, True)
    torch.testing.assert_close(found_TO, reference_attention(qkv_TC, [3, 2], 2, 2, True), atol=2e-6, rtol=1e-6)
    rows_RO = OPS.attend_rows(torch.randn(5, 64, generator=rng), qkv_TC, plan_of(lengths), 2, 2, 0.2)
    assert (rows_RO[[0, 2, 3]] == 0).all()
    assert rows_RO[[1, 4]].abs().min() > 0
    nothing_TC = torch.zeros(0, 6 * 32)
    assert OPS.attend(nothing_TC, plan_of([]), 2, 2, 0.2, True).shape == (0, 64)

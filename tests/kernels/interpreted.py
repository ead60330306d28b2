"""The Triton kernels against their plain twins on CPU, through Triton's interpreter, in float32.

Not collected with the other tests: the interpreter must be chosen before Triton is imported, so
test_interpreter.py runs this file in a process of its own. By hand:
TRITON_INTERPRET=1 pytest tests/kernels/interpreted.py
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from anydim.kernels import (
    AttentionPlan,
    TileShape,
    make_plan,
    place_plan,
    plain_ops,
    rope_tables,
    tile_bound,
    tile_shape,
    triton_ops,
)
from anydim.types import Prefixes

PLAIN, TRITON = plain_ops(), triton_ops()
LENGTHS = [37, 21, 21, 16, 3, 1, 1]
TOTAL = sum(LENGTHS)
GEOMETRIES = [(2, 2, 32), (4, 2, 64), (4, 1, 32), (3, 1, 32), (2, 1, 128), (10, 2, 32)]
EXACT = {"atol": 3e-6, "rtol": 1e-5}

pytestmark = pytest.mark.usefixtures("poisoned")


@triton.jit
def _count_to(bound_ptr: tl.tensor, out_ptr: tl.tensor) -> None:
    total = 0
    for _ in tl.range(0, tl.load(bound_ptr)):
        total += 1
    tl.store(out_ptr, total)


def loops_work() -> bool:
    """Whether this interpreter takes a loaded loop bound: some releases fail on that under newer numpy."""
    out = torch.zeros(1, dtype=torch.int32)
    try:
        _count_to[(1,)](torch.tensor([3], dtype=torch.int32), out)
    except Exception:
        return False
    return out.item() == 3


needs_loops = pytest.mark.skipif(not loops_work(), reason="this Triton's interpreter and numpy disagree on loop bounds")


def padded_plan(lengths: list[int], shape: TileShape, spare: int = 3) -> AttentionPlan:
    slots = len(lengths) + spare
    plan = make_plan(lengths, shape, n_texts=slots, n_tiles=tile_bound(sum(lengths), slots, shape))
    return place_plan(plan, "cpu")


def block(rng: torch.Generator, tokens: int, columns: int) -> Tensor:
    """A qkv block in a wider buffer, NaN behind its texts and beside its columns: neither may be read."""
    wide_TC = torch.full((tokens + 4, columns + 32), float("nan"))
    wide_TC[:tokens, 16 : 16 + columns] = torch.randn(tokens, columns, generator=rng)
    return wide_TC[:, 16 : 16 + columns]


@pytest.mark.parametrize("width", [1, 100, 257])
def test_norms(width: int, rng: torch.Generator) -> None:
    x_TD = torch.randn(5, width + 3, generator=rng)[:, :width]
    residual_TD, weight_D = torch.randn(5, width, generator=rng), torch.randn(width, generator=rng)
    torch.testing.assert_close(TRITON.rms_norm(x_TD, weight_D, 1e-6), PLAIN.rms_norm(x_TD, weight_D, 1e-6), **EXACT)
    found_TD, sum_TD = TRITON.add_rms_norm(x_TD, residual_TD.clone(), weight_D, 1e-6)
    wanted_TD, wanted_sum_TD = PLAIN.add_rms_norm(x_TD, residual_TD, weight_D, 1e-6)
    torch.testing.assert_close(sum_TD, wanted_sum_TD, atol=0, rtol=0)
    torch.testing.assert_close(found_TD, wanted_TD, **EXACT)


@pytest.mark.parametrize("width", [1, 70, 2049])
def test_silu_mul(width: int, rng: torch.Generator) -> None:
    gate_up_TF = torch.randn(3, 2 * width, generator=rng) * 4
    torch.testing.assert_close(TRITON.silu_mul(gate_up_TF), PLAIN.silu_mul(gate_up_TF), **EXACT)


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [*GEOMETRIES, (4, 0, 32), (0, 2, 64)])
@pytest.mark.parametrize("normed", [True, False])
def test_qk_norm_rope(heads: int, kv_heads: int, head_dim: int, normed: bool, rng: torch.Generator) -> None:
    tables = rope_tables(head_dim, 1e6, 50, "cpu")
    q_weight_E, k_weight_E = torch.randn(2, head_dim, generator=rng) if normed else (None, None)
    positions_T = torch.randint(0, 50, (7,), generator=rng, dtype=torch.int32)
    columns = (heads + kv_heads + 2) * head_dim
    found_TC = torch.randn(7, columns, generator=rng)
    wanted_TC = found_TC.clone()
    args = (positions_T, q_weight_E, k_weight_E, *tables, heads, kv_heads, 1e-6)
    TRITON.qk_norm_rope_(found_TC, *args)
    PLAIN.qk_norm_rope_(wanted_TC, *args)
    torch.testing.assert_close(found_TC, wanted_TC, **EXACT)
    untouched = (heads + kv_heads) * head_dim
    assert torch.equal(found_TC[:, untouched:], wanted_TC[:, untouched:])


@needs_loops
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), GEOMETRIES)
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("longest", [16, 512, 4096])
def test_attend(heads: int, kv_heads: int, head_dim: int, causal: bool, longest: int, rng: torch.Generator) -> None:
    lengths = [n for n in LENGTHS if n <= longest]
    qkv_TC = block(rng, sum(lengths), (heads + 2 * kv_heads) * head_dim)
    plan = padded_plan(lengths, tile_shape(longest, heads, kv_heads))
    found_TO = TRITON.attend(qkv_TC, plan, heads, kv_heads, 0.2, causal)[: sum(lengths)]
    wanted_TO = PLAIN.attend(qkv_TC, plan, heads, kv_heads, 0.2, causal)[: sum(lengths)]
    torch.testing.assert_close(found_TO, wanted_TO, **EXACT)


@needs_loops
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("heads_first", [True, False])
@pytest.mark.parametrize(("tokens", "keys"), [(4, 16), (16, 16), (8, 32), (32, 16)])
def test_attend_with_every_way_through_the_keys(
    causal: bool, split: bool, heads_first: bool, tokens: int, keys: int, rng: torch.Generator
) -> None:
    shape = replace(tile_shape(64, 8, 2), tokens=tokens, block_keys=keys, split=split, heads_first=heads_first)
    qkv_TC = block(rng, TOTAL, 12 * 32)
    plan = padded_plan(LENGTHS, shape)
    found_TO = TRITON.attend(qkv_TC, plan, 8, 2, 0.2, causal)[:TOTAL]
    torch.testing.assert_close(found_TO, PLAIN.attend(qkv_TC, plan, 8, 2, 0.2, causal)[:TOTAL], **EXACT)


@needs_loops
@pytest.mark.parametrize("causal", [True, False])
def test_attend_through_descriptors(causal: bool, rng: torch.Generator) -> None:
    shape = replace(tile_shape(4096, 4, 2), tokens=8, block_keys=16, descriptors=True)
    qkv_TC = torch.randn(TOTAL, 8 * 32, generator=rng)
    plan = padded_plan(LENGTHS, shape)
    found_TO = TRITON.attend(qkv_TC, plan, 4, 2, 0.2, causal)
    torch.testing.assert_close(found_TO, PLAIN.attend(qkv_TC, plan, 4, 2, 0.2, causal), **EXACT)


@needs_loops
def test_large_scores_do_not_overflow(rng: torch.Generator) -> None:
    qkv_TC = 40 * torch.randn(TOTAL, 8 * 32, generator=rng)
    plan = padded_plan(LENGTHS, tile_shape(64, 4, 2))
    found_TO = TRITON.attend(qkv_TC, plan, 4, 2, 1.0, True)
    torch.testing.assert_close(found_TO, PLAIN.attend(qkv_TC, plan, 4, 2, 1.0, True), atol=1e-2, rtol=1e-3)


@needs_loops
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [*GEOMETRIES, (20, 1, 32)])
@pytest.mark.parametrize("lengths", [LENGTHS, [90, 65], [0, 3, 0, 1, 0]])
def test_attend_rows(heads: int, kv_heads: int, head_dim: int, lengths: list[int], rng: torch.Generator) -> None:
    qkv_TC = block(rng, sum(lengths), (heads + 2 * kv_heads) * head_dim)
    q_RO = torch.randn(len(lengths), heads * head_dim, generator=rng)
    plan = padded_plan(lengths, tile_shape(max(lengths), heads, kv_heads))
    for block_TC in (qkv_TC, qkv_TC[:, heads * head_dim :]):
        found_RO = TRITON.attend_rows(q_RO, block_TC, plan, heads, kv_heads, 0.2)
        torch.testing.assert_close(found_RO, PLAIN.attend_rows(q_RO, qkv_TC, plan, heads, kv_heads, 0.2), **EXACT)


OWN_LENGTHS = [18, 5, 5, 1, 3, 1]
PREFIX_LENGTHS, PREFIX_OF = [37, 16, 1], [0, 1, -1, 0, 2, 1]  # around blocks of 16 and 32 keys
ALL_TOKENS = sum(OWN_LENGTHS) + sum(PREFIX_LENGTHS)


def prefixed_plan(shape: TileShape, spare: int = 2) -> AttentionPlan:
    prefixes = Prefixes(np.array(PREFIX_LENGTHS, np.int32), np.array(PREFIX_OF, np.int32))
    slots = len(OWN_LENGTHS) + spare
    tiles = tile_bound(ALL_TOKENS, slots + len(PREFIX_LENGTHS), shape)
    return place_plan(make_plan(OWN_LENGTHS, shape, n_texts=slots, n_tiles=tiles, prefixes=prefixes), "cpu")


@needs_loops
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), GEOMETRIES)
@pytest.mark.parametrize("longest", [16, 512])
def test_attend_with_prefixes(heads: int, kv_heads: int, head_dim: int, longest: int, rng: torch.Generator) -> None:
    qkv_TC = block(rng, ALL_TOKENS, (heads + 2 * kv_heads) * head_dim)
    plan = prefixed_plan(replace(tile_shape(longest, heads, kv_heads), descriptors=False))
    found_TO = TRITON.attend(qkv_TC, plan, heads, kv_heads, 0.2, True)[:ALL_TOKENS]
    wanted_TO = PLAIN.attend(qkv_TC, plan, heads, kv_heads, 0.2, True)[:ALL_TOKENS]
    torch.testing.assert_close(found_TO, wanted_TO, **EXACT)


@needs_loops
@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("heads_first", [True, False])
@pytest.mark.parametrize(("tokens", "keys"), [(4, 16), (8, 32), (32, 64)])
@pytest.mark.parametrize("descriptors", [True, False])
def test_attend_with_prefixes_and_every_way_through_the_keys(
    split: bool, heads_first: bool, tokens: int, keys: int, descriptors: bool, rng: torch.Generator
) -> None:
    shape = replace(tile_shape(64, 4, 1), tokens=tokens, block_keys=keys, split=split, heads_first=heads_first)
    plan = prefixed_plan(replace(shape, descriptors=descriptors))
    qkv_TC = torch.randn(ALL_TOKENS, 6 * 32, generator=rng)
    found_TO = TRITON.attend(qkv_TC, plan, 4, 1, 0.2, True)
    torch.testing.assert_close(found_TO, PLAIN.attend(qkv_TC, plan, 4, 1, 0.2, True), **EXACT)


@needs_loops
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [*GEOMETRIES, (20, 1, 32)])
def test_attend_rows_with_prefixes(heads: int, kv_heads: int, head_dim: int, rng: torch.Generator) -> None:
    qkv_TC = block(rng, ALL_TOKENS, (heads + 2 * kv_heads) * head_dim)
    q_RO = torch.randn(len(OWN_LENGTHS), heads * head_dim, generator=rng)
    plan = prefixed_plan(tile_shape(64, heads, kv_heads))
    wanted_RO = PLAIN.attend_rows(q_RO, qkv_TC, plan, heads, kv_heads, 0.2)
    for block_TC in (qkv_TC, qkv_TC[:, heads * head_dim :]):
        found_RO = TRITON.attend_rows(q_RO, block_TC, plan, heads, kv_heads, 0.2)
        torch.testing.assert_close(found_RO, wanted_RO, **EXACT)


@needs_loops
def test_a_spare_row_is_zero(rng: torch.Generator) -> None:
    """Rows of a bucket's spare texts must not carry rubbish on."""
    plan = padded_plan([5], tile_shape(5, 4, 2), spare=2)
    qkv_TC = block(rng, 5, 8 * 32)
    found_RO = TRITON.attend_rows(torch.randn(3, 128, generator=rng), qkv_TC, plan, 4, 2, 0.2)
    assert (found_RO[1:] == 0).all()


def test_no_tokens_is_no_launch() -> None:
    plan = place_plan(make_plan([], tile_shape(1, 4, 2)), "cpu")
    assert TRITON.attend(torch.zeros(0, 256), plan, 4, 2, 0.2, True).shape == (0, 128)
    assert TRITON.attend_rows(torch.zeros(0, 128), torch.zeros(0, 256), plan, 4, 2, 0.2).shape == (0, 128)
    assert TRITON.rms_norm(torch.zeros(0, 8), torch.ones(8), 1e-6).shape == (0, 8)
    assert TRITON.silu_mul(torch.zeros(0, 8)).shape == (0, 4)

"""How right is each Triton kernel on this GPU? In bfloat16, at full size, against float32 references.

Run by `benchmarks.kernels` before its timings. Odd shapes, fresh inputs, outputs that torch fills with NaN, NaN
behind the texts, and a CUDA graph replayed with another batch. It knows the kernels; it times nothing.

Shapes: T tokens, D hidden width, C columns of the qkv block, O = n_heads * E, L tokens of a text, H heads, E head
width, F = 2 * intermediate, R rows (one a text), S text slots, W words of a plan's table.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from anydim.kernels import (
    AttentionPlan,
    Ops,
    TileShape,
    bind_plan,
    make_plan,
    place_plan,
    plain_ops,
    rope_tables,
    tile_bound,
    tile_shape,
)

EPS: Final = 1e-6
TOLERANCE: Final = 8e-3  # relative norm error; one rounding to bfloat16 is about 2e-3
TOKENS: Final = 32768
ODD_LENGTHS: Final = (1, 2, 3, 15, 16, 17, 31, 33, 63, 65, 127, 129, 400, 511, 513, 1000, 4095)


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of one model."""

    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    head_dim: int = 128

    @property
    def columns(self) -> int:
        """Width of the fused qkv block."""
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def scale(self) -> float:
        """The usual scale of attention scores."""
        return float(self.head_dim**-0.5)

    def tiles(self, max_length: int) -> TileShape:
        """The default launch configuration of attention."""
        return tile_shape(max_length, self.heads, self.kv_heads)


def guarded(results: dict[str, Any], label: str, run: Callable[..., dict[str, Any]], *args: object) -> None:
    """Run, record under the label, print; an error is a result too."""
    try:
        found = run(*args)
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"[:300]}
    results[label] = found
    words = (f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in found.items())
    print(f"{label:<62} {'  '.join(words)}", flush=True)


def random_bf16(*size: int) -> Tensor:
    """Normal numbers on the GPU."""
    return torch.randn(size, device="cuda").bfloat16()


def plan_for(lengths: Sequence[int], shape: TileShape, spare: int = 0) -> AttentionPlan:
    """A plan on the GPU with `spare` more texts than needed."""
    slots = len(lengths) + spare
    tiles = tile_bound(sum(lengths), slots, shape) if spare else None
    return place_plan(make_plan(lengths, shape, n_texts=slots, n_tiles=tiles), "cuda")


def rope(ops: Ops, qkv_TC: Tensor, shape: Shape) -> Callable[[], None]:
    """A call of qk_norm_rope_ with weights and positions that depend only on the sizes."""
    q_weight_E = torch.linspace(0.5, 2.0, shape.head_dim, device="cuda").bfloat16()
    cos_PF, sin_PF = rope_tables(shape.head_dim, 1e6, 40960, "cuda")
    positions_T = torch.arange(len(qkv_TC), device="cuda", dtype=torch.int32) * 7 % 40960
    weights = (q_weight_E, q_weight_E.flip(0))
    return partial(ops.qk_norm_rope_, qkv_TC, positions_T, *weights, cos_PF, sin_PF, shape.heads, shape.kv_heads, EPS)


def run_checks(shape: Shape, ops: Ops, results: dict[str, Any]) -> None:
    """All checks, with torch filling each new output with NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    for check in (_rms_norm, _add_rms_norm, _silu_mul, _qk_norm_rope):
        guarded(results, f"check {check.__name__[1:]}", check, shape, ops, plain_ops())
    for bound in (16, 32, 64, 512, 4096):
        lengths = sorted(random.Random(bound).choices([n for n in ODD_LENGTHS if n <= bound], k=40))
        guarded(results, f"check attend to {bound} causal", _attend, lengths, bound, shape, ops, True)
        guarded(results, f"check attend to {bound} both ways", _attend, lengths, bound, shape, ops, False)
        guarded(results, f"check attend_rows to {bound}", _attend_rows, lengths, shape, ops)
    guarded(results, "check graph replay = eager", _graph, shape, ops)
    guarded(results, "check attend float32", _float32, ops, plain_ops())
    torch.use_deterministic_algorithms(False)


def error_of(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm; NaN anywhere stays NaN."""
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


def verdict(error: float, tolerance: float = TOLERANCE) -> dict[str, Any]:
    """The error, and whether it is within the tolerance (NaN is not)."""
    return {"error": error, "ok": error <= tolerance}


def _rms_norm(shape: Shape, ops: Ops, plain: Ops) -> dict[str, Any]:
    x_TD, weight_D = random_bf16(TOKENS - 13, shape.hidden), random_bf16(shape.hidden)
    return verdict(error_of(ops.rms_norm(x_TD, weight_D, EPS), plain.rms_norm(x_TD.float(), weight_D, EPS)))


def _add_rms_norm(shape: Shape, ops: Ops, plain: Ops) -> dict[str, Any]:
    x_TD, residual_TD = random_bf16(TOKENS - 13, shape.hidden), random_bf16(TOKENS - 13, shape.hidden)
    weight_D = random_bf16(shape.hidden)
    wanted_TD, sum_TD = plain.add_rms_norm(x_TD.float(), residual_TD.float(), weight_D, EPS)
    found_TD, _ = ops.add_rms_norm(x_TD, residual_TD, weight_D, EPS)
    return verdict(max(error_of(residual_TD, sum_TD), error_of(found_TD, wanted_TD)))


def _silu_mul(shape: Shape, ops: Ops, plain: Ops) -> dict[str, Any]:
    gate_up_TF = random_bf16(TOKENS - 13, 2 * shape.intermediate)
    return verdict(error_of(ops.silu_mul(gate_up_TF), plain.silu_mul(gate_up_TF.float())))


def _qk_norm_rope(shape: Shape, ops: Ops, plain: Ops) -> dict[str, Any]:
    qkv_TC = random_bf16(TOKENS - 13, shape.columns)
    wanted_TC = qkv_TC.float()
    rope(plain, wanted_TC, shape)()
    rope(ops, qkv_TC, shape)()
    first = (shape.heads + shape.kv_heads) * shape.head_dim
    assert torch.equal(qkv_TC[:, first:].float(), wanted_TC[:, first:]), "the values were touched"
    return verdict(error_of(qkv_TC[:, :first], wanted_TC[:, :first]))


def _block(tokens: int, shape: Shape) -> Tensor:
    """A random qkv block, with rows of NaN behind the texts: nothing may read them."""
    qkv_TC = random_bf16(tokens + 5, shape.columns)
    qkv_TC[tokens:] = float("nan")
    return qkv_TC


def _expected(qkv_TC: Tensor, lengths: Sequence[int], tokens: Sequence[int], shape: Shape, causal: bool) -> Tensor:
    """Attention of a few tokens, written out in float32."""
    ends_S = np.cumsum(lengths)
    heads_THE = qkv_TC.view(len(qkv_TC), -1, shape.head_dim)
    rows = []
    for token in tokens:
        text = int(np.searchsorted(ends_S, token, side="right"))
        start, end = int(ends_S[text]) - lengths[text], token + 1 if causal else int(ends_S[text])
        kv_LHE = heads_THE[start:end, shape.heads :].float().repeat_interleave(shape.heads // shape.kv_heads, 1)
        k_LHE, v_LHE = kv_LHE.chunk(2, dim=1)
        score_HL = torch.einsum("he,lhe->hl", heads_THE[token, : shape.heads].float(), k_LHE) * shape.scale
        rows.append(torch.einsum("hl,lhe->he", score_HL.softmax(-1), v_LHE).flatten())
    return torch.stack(rows)


def _attend(lengths: Sequence[int], bound: int, shape: Shape, ops: Ops, causal: bool) -> dict[str, Any]:
    """Sampled tokens, text edges among them, and no NaN in any row of a text."""
    total, ends_S = sum(lengths), np.cumsum(lengths)
    qkv_TC = _block(total, shape)
    plan = plan_for(lengths, shape.tiles(bound), spare=3)
    out_TO = ops.attend(qkv_TC, plan, shape.heads, shape.kv_heads, shape.scale, causal)[:total]
    assert not out_TO.isnan().any(), "NaN in the output"
    between = random.Random(1).sample(range(total), min(48, total))
    tokens = sorted({*(ends_S - 1).tolist(), *(ends_S - lengths).tolist(), *between})
    return verdict(error_of(out_TO[tokens], _expected(qkv_TC, lengths, tokens, shape, causal)))


def _attend_rows(lengths: Sequence[int], shape: Shape, ops: Ops) -> dict[str, Any]:
    """One query a text equals attention at its last token."""
    qkv_TC = _block(sum(lengths), shape)
    plan = plan_for(lengths, shape.tiles(max(lengths)), spare=2)
    lasts = (np.cumsum(lengths) - 1).tolist()
    width = shape.heads * shape.head_dim
    q_RO = qkv_TC[lasts, :width].contiguous()
    found_RO = ops.attend_rows(q_RO, qkv_TC[:, width:], plan, shape.heads, shape.kv_heads, shape.scale)
    return verdict(error_of(found_RO, _expected(qkv_TC, lengths, lasts, shape, True)))


def _graph(shape: Shape, ops: Ops) -> dict[str, Any]:
    """A captured attention serves another batch of its bucket after one copy of the table."""
    tokens, first, second = 2048, [64] * 32, [1, 2, 3, 41, 99, 700, 1000]
    tiles = shape.tiles(tokens)
    plan_of = partial(make_plan, shape=tiles, n_texts=40, n_tiles=tile_bound(tokens, 40, tiles), max_length=tokens)
    table_W = torch.from_numpy(plan_of(first).table_W).cuda()
    plan = bind_plan(plan_of(first), table_W)
    qkv_TC = random_bf16(tokens, shape.columns)
    args = (shape.heads, shape.kv_heads, shape.scale, True)
    ops.attend(qkv_TC, plan, *args)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out_TO = ops.attend(qkv_TC, plan, *args)
    table_W.copy_(torch.from_numpy(plan_of(second).table_W))
    out_TO.fill_(float("nan"))
    graph.replay()
    eager_TO = ops.attend(qkv_TC, plan_for(second, tiles), *args)
    return verdict(error_of(out_TO[: sum(second)], eager_TO[: sum(second)]), 0.0)


def _float32(ops: Ops, plain: Ops) -> dict[str, Any]:
    """Float32 products must be exact, not TF32."""
    lengths, heads, kv_heads = [300, 77, 77, 5, 1], 8, 2
    qkv_TC = torch.randn(sum(lengths), (heads + 2 * kv_heads) * 64, device="cuda")
    plan = plan_for(lengths, tile_shape(300, heads, kv_heads, itemsize=4))
    found_TO = ops.attend(qkv_TC, plan, heads, kv_heads, 0.125, True)
    return verdict(error_of(found_TO, plain.attend(qkv_TC, plan, heads, kv_heads, 0.125, True)), 1e-5)

"""How fast, and how right, is each Triton kernel on this GPU?

Run: python -m benchmarks.kernels [--shape 4b] [--part check elementwise attention]
Needs CUDA and Triton; about three minutes. Checks every kernel first (kernels_check.py), then times it beside
torch's own way, and attention in several launch configurations, so that `plan.tile_shape` can be set from one run.
A configuration that fails prints its error and the run goes on. Ends with one JSON line.
It knows the kernels and the sizes of the Qwen3-Embedding models; it runs no model.

Shapes: T tokens, D hidden width, C columns of the qkv block, O = n_heads * E, F = 2 * intermediate, R texts.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

from anydim.kernels import Ops, TileShape, flash_ops, plain_ops, rope_tables, triton_ops
from benchmarks.kernels_check import (
    EPS,
    TOKENS,
    Shape,
    error_of,
    guarded,
    plan_for,
    random_bf16,
    rope,
    run_checks,
    verdict,
)

SHAPES: Final = MappingProxyType(
    {"0.6b": Shape(1024, 16, 8, 3072), "4b": Shape(2560, 32, 8, 9728), "8b": Shape(4096, 32, 8, 12288)}
)

# Longest text they are tried for: (query rows, keys of a block, warps, stages, split, heads_first, descriptors).
CONFIGS: Final = (
    (64, (32, 16, 4, 1, False, True, False)),
    (64, (64, 16, 4, 1, False, True, False)),
    (64, (32, 32, 2, 1, False, True, False)),
    (64, (32, 32, 4, 1, False, True, False)),
    (512, (64, 32, 4, 1, False, True, False)),
    (512, (64, 32, 4, 2, False, True, False)),
    (512, (128, 32, 8, 1, False, True, False)),
    (512, (128, 32, 8, 2, False, True, False)),
    (512, (64, 64, 4, 1, False, True, False)),
    (512, (64, 64, 4, 2, False, True, False)),
    (TOKENS, (64, 32, 4, 3, True, True, False)),
    (TOKENS, (64, 32, 4, 3, True, False, True)),
    (TOKENS, (128, 32, 4, 3, True, False, True)),
    (TOKENS, (64, 64, 4, 2, True, True, False)),
    (TOKENS, (64, 64, 4, 2, True, True, True)),
    (TOKENS, (128, 64, 8, 2, True, True, False)),
    (TOKENS, (128, 64, 8, 2, True, True, True)),
    (512, (128, 32, 4, 2, False, True, False)),
    (TOKENS, (128, 64, 4, 3, True, False, False)),
    (TOKENS, (128, 64, 8, 3, True, False, False)),
    (TOKENS, (128, 64, 8, 3, True, False, True)),
    (TOKENS, (128, 128, 8, 2, True, False, False)),
    (TOKENS, (128, 128, 8, 2, True, False, True)),
)


def cases() -> dict[str, list[int]]:
    """Text lengths of each timed batch."""
    equal = {f"{n}": [n] * (TOKENS // n) for n in (32, 128, 512, 4096, 32768)}
    return {**equal, "mixed": mixed(), "one of 32": [32], "one of 512": [512]}


def mixed() -> list[int]:
    """Sorted log-normal lengths, 8 to 4096, that make up TOKENS tokens."""
    draw, lengths = random.Random(7), [0]
    while sum(lengths) < TOKENS:
        lengths.append(min(max(int(draw.lognormvariate(5, 1)), 8), 4096, TOKENS - sum(lengths)))
    return sorted(lengths[1:])


def tiles_of(config: Sequence[int], heads: int) -> TileShape:
    """The launch configuration of one line of CONFIGS."""
    rows, keys, warps, stages, split, heads_first, descriptors = config
    return TileShape(
        tokens=max(rows // heads, 1),
        heads=heads,
        block_keys=keys,
        num_warps=warps,
        num_stages=stages,
        split=bool(split),
        heads_first=bool(heads_first),
        descriptors=bool(descriptors),
    )


def timed(run: Callable[[], object]) -> float:
    """Median milliseconds of the GPU, each call with a cold L2 cache (the clearing also hides the launch)."""
    cold = torch.empty(64 * 2**20, dtype=torch.int32, device="cuda")
    run()
    torch.cuda.synchronize()
    times: list[float] = []
    event: Any = torch.cuda.Event
    while len(times) < 5 or (len(times) < 30 and sum(times) < 80.0):
        start, end = event(enable_timing=True), event(enable_timing=True)
        cold.zero_()
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def run_elementwise(shape: Shape, ops: Ops, results: dict[str, Any]) -> None:
    """The memory-bound kernels: default against torch, then other launch configurations."""
    for tokens in (TOKENS, 512, 32):
        for name, (traffic, call) in calls(tokens, shape).items():
            guarded(results, f"{name} T={tokens}", beside, call(ops), call(plain_ops()), traffic)
        for label, run in variants(tokens, shape).items():
            guarded(results, f"  {label} T={tokens}", milliseconds, run)


def calls(tokens: int, shape: Shape) -> dict[str, tuple[int, Callable[[Ops], Callable[[], object]]]]:
    """Bytes that must move, and the call, of each kernel."""
    x_TD, weight_D = random_bf16(tokens, shape.hidden), random_bf16(shape.hidden)
    residual_TD = random_bf16(tokens, shape.hidden)
    gate_up_TF, qkv_TC = random_bf16(tokens, 2 * shape.intermediate), random_bf16(tokens, shape.columns)
    turned = (shape.heads + shape.kv_heads) * shape.head_dim
    return {
        "rms_norm": (2 * x_TD.nbytes, lambda ops: partial(ops.rms_norm, x_TD, weight_D, EPS)),
        "add_rms_norm": (4 * x_TD.nbytes, lambda ops: partial(ops.add_rms_norm, x_TD, residual_TD, weight_D, EPS)),
        "qk_norm_rope_": (4 * tokens * turned, lambda ops: rope(ops, qkv_TC, shape)),
        "silu_mul": (gate_up_TF.nbytes * 3 // 2, lambda ops: partial(ops.silu_mul, gate_up_TF)),
    }


def variants(tokens: int, shape: Shape) -> dict[str, Callable[[], object]]:
    """Launch configurations of the elementwise kernels."""
    from anydim.kernels import activation_triton, norm_triton, rope_triton

    x_TD, weight_D, weight_E = (random_bf16(*n) for n in ((tokens, shape.hidden), (shape.hidden,), (shape.head_dim,)))
    gate_up_TF, qkv_TC = random_bf16(tokens, 2 * shape.intermediate), random_bf16(tokens, shape.columns)
    tables = rope_tables(shape.head_dim, 1e6, tokens, "cuda")
    places_T = torch.arange(tokens, device="cuda", dtype=torch.int32)
    turn = (qkv_TC, places_T, weight_E, weight_E, *tables, shape.heads, shape.kv_heads, EPS)
    found: dict[str, Callable[[], object]] = {}
    for warps in (2, 4, 8):
        found[f"add_rms_norm warps={warps}"] = partial(
            norm_triton.add_rms_norm, x_TD, torch.zeros_like(x_TD), weight_D, EPS, warps
        )
    for block, warps in ((1024, 2), (1024, 4), (2048, 8), (4096, 8)):
        found[f"silu_mul block={block} warps={warps}"] = partial(activation_triton.silu_mul, gate_up_TF, block, warps)
    for rows, warps in ((8, 1), (8, 4), (16, 4), (32, 4), (64, 4), (64, 8)):
        found[f"qk_norm_rope_ rows={rows} warps={warps}"] = partial(rope_triton.qk_norm_rope_, *turn, rows, warps)
    return found


def beside(ours: Callable[[], object], torchs: Callable[[], object], traffic: int) -> dict[str, float]:
    """Our time and bandwidth, and torch's time."""
    ms = timed(ours)
    return {"ms": ms, "TB/s": traffic / ms / 1e9, "torch ms": timed(torchs)}


def milliseconds(run: Callable[[], object]) -> dict[str, float]:
    """The time alone."""
    return {"ms": timed(run)}


def run_attention(shape: Shape, ops: Ops, results: dict[str, Any]) -> None:
    """Attention by case: the default, torch's FlashAttention-2, then the table of configurations."""
    for case, lengths in cases().items():
        qkv_TC = random_bf16(sum(lengths), shape.columns)
        default = shape.tiles(max(lengths))
        guarded(results, f"attend {case}: default", time_attend, qkv_TC, lengths, default, shape, ops)
        guarded(results, f"attend {case}: flash", time_attend, qkv_TC, lengths, default, shape, flash_ops())
        for config in (config for longest, config in CONFIGS if max(lengths) <= longest):
            tiles = tiles_of(config, default.heads)
            guarded(results, f"  attend {case}: {config}", time_attend, qkv_TC, lengths, tiles, shape, ops)
        guarded(results, f"attend_rows {case}: default", time_rows, qkv_TC, lengths, default, shape, ops)
        guarded(results, f"attend_rows {case}: flash", time_rows, qkv_TC, lengths, default, shape, flash_ops())


def time_attend(qkv_TC: Tensor, lengths: list[int], tiles: TileShape, shape: Shape, ops: Ops) -> dict[str, Any]:
    """Milliseconds a layer, causal TFLOP/s, TB/s of reading the block and writing once; the error beside flash."""
    plan = plan_for(lengths, tiles)
    run = partial(ops.attend, qkv_TC, plan, shape.heads, shape.kv_heads, shape.scale, True)
    wanted_TO = flash_ops().attend(qkv_TC, plan, shape.heads, shape.kv_heads, shape.scale, True)
    checked = verdict(error_of(run(), wanted_TO))
    ms = timed(run)
    flops = 2 * shape.heads * shape.head_dim * sum(n * n for n in lengths)
    traffic = qkv_TC.nbytes + 2 * len(qkv_TC) * shape.heads * shape.head_dim
    return {"ms": ms, "TFLOP/s": flops / ms / 1e9, "TB/s": traffic / ms / 1e9, **checked}


def time_rows(qkv_TC: Tensor, lengths: list[int], tiles: TileShape, shape: Shape, ops: Ops) -> dict[str, float]:
    """Milliseconds, and TB/s of reading the keys and values once."""
    plan = plan_for(lengths, tiles)
    q_RO = qkv_TC[: len(lengths), : shape.heads * shape.head_dim].contiguous()
    ms = timed(partial(ops.attend_rows, q_RO, qkv_TC, plan, shape.heads, shape.kv_heads, shape.scale))
    return {"ms": ms, "TB/s": 4 * len(qkv_TC) * shape.kv_heads * shape.head_dim / ms / 1e9}


def main() -> None:
    """Read the command line, run the parts asked for, print the JSON line."""
    parts = {"check": run_checks, "elementwise": run_elementwise, "attention": run_attention}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="4b")
    parser.add_argument("--part", nargs="+", choices=list(parts), default=list(parts))
    args = parser.parse_args()
    shape, ops = SHAPES[args.shape], triton_ops()
    results: dict[str, Any] = {}
    for part in args.part:
        parts[part](shape, ops, results)
    failed = [label for label, found in results.items() if "error" in found and not found.get("ok", False)]
    about = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "shape": asdict(shape)}
    print(json.dumps({**about, "failed": failed, "results": results}))


if __name__ == "__main__":
    main()

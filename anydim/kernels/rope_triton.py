"""Rotary positions with Qwen3's per-head RMSNorm as one Triton kernel over the fused qkv block.

Equal to rope.py. Imported only when Triton is chosen. One program takes a few tokens by a few heads, all of
them q heads or all k heads, and reads and writes each element once.

Shapes: T tokens, C columns, E head width, F = E/2, P positions, M rows of a program (token, head).
"""
# mypy: disable-error-code="import-untyped,import-not-found,untyped-decorator"

from __future__ import annotations

import math

import triton
import triton.language as tl
from torch import Tensor


@triton.jit(do_not_specialize=["n_tokens"], do_not_specialize_on_alignment=["position_ptr"])
def _qk_norm_rope_kernel(
    qkv_ptr: tl.tensor,
    position_ptr: tl.tensor,
    q_weight_ptr: tl.tensor,
    k_weight_ptr: tl.tensor,
    cos_ptr: tl.tensor,
    sin_ptr: tl.tensor,
    n_tokens: tl.tensor,
    stride: tl.tensor,
    eps: tl.tensor,
    N_HEADS: tl.constexpr,
    N_KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    TOKENS: tl.constexpr,
    HEADS: tl.constexpr,
) -> None:
    blocks: tl.constexpr = (N_HEADS + N_KV_HEADS) // HEADS
    pid = tl.program_id(0)
    m_M = tl.arange(0, TOKENS * HEADS)
    token_M = (pid // blocks) * TOKENS + m_M // HEADS
    head = (pid % blocks) * HEADS
    head_M = head + m_M % HEADS
    inside_M1 = (token_M < n_tokens)[:, None]
    f_F = tl.arange(0, HALF)[None, :]
    a_ptrs = qkv_ptr + (token_M.to(tl.int64) * stride + head_M * (2 * HALF))[:, None] + f_F
    a_MF = tl.load(a_ptrs, mask=inside_M1, other=0.0).to(tl.float32)
    b_MF = tl.load(a_ptrs + HALF, mask=inside_M1, other=0.0).to(tl.float32)
    position_M = tl.load(position_ptr + token_M, mask=token_M < n_tokens, other=0)
    angle_MF = position_M.to(tl.int32)[:, None] * HALF + f_F
    cos_MF = tl.load(cos_ptr + angle_MF, mask=inside_M1, other=0.0)
    sin_MF = tl.load(sin_ptr + angle_MF, mask=inside_M1, other=0.0)
    if head < N_HEADS:
        if q_weight_ptr is not None:
            a_MF, b_MF = normalise_halves(a_MF, b_MF, q_weight_ptr, eps, HALF)
    else:
        if k_weight_ptr is not None:
            a_MF, b_MF = normalise_halves(a_MF, b_MF, k_weight_ptr, eps, HALF)
    tl.store(a_ptrs, a_MF * cos_MF - b_MF * sin_MF, mask=inside_M1)
    tl.store(a_ptrs + HALF, b_MF * cos_MF + a_MF * sin_MF, mask=inside_M1)


@triton.jit
def normalise_halves(
    a_MF: tl.tensor, b_MF: tl.tensor, weight_ptr: tl.tensor, eps: tl.tensor, HALF: tl.constexpr
) -> tl.tensor:
    """RMSNorm of heads given as their two halves; a block of rows a program."""
    f_F = tl.arange(0, HALF)
    square_M = tl.sum(a_MF * a_MF, axis=1) + tl.sum(b_MF * b_MF, axis=1)
    scale_M1 = tl.rsqrt(square_M / (2 * HALF) + eps)[:, None]
    a_weight_F = tl.load(weight_ptr + f_F).to(tl.float32)
    b_weight_F = tl.load(weight_ptr + HALF + f_F).to(tl.float32)
    return a_MF * scale_M1 * a_weight_F[None, :], b_MF * scale_M1 * b_weight_F[None, :]


def qk_norm_rope_(
    qkv_TC: Tensor,
    positions_T: Tensor,
    q_weight_E: Tensor | None,
    k_weight_E: Tensor | None,
    cos_PF: Tensor,
    sin_PF: Tensor,
    n_heads: int,
    n_kv_heads: int,
    eps: float,
    rows: int = 0,
    num_warps: int = 4,
) -> None:
    """Equal to `rope.qk_norm_rope_`, IN PLACE on qkv_TC.

    rows: (token, head) pairs one program takes, a power of two; 0 for the measured choice.
    """
    n_tokens = qkv_TC.shape[0]
    heads = _head_block(n_heads, n_kv_heads)
    tokens = max((rows or (32 if n_tokens >= 1024 else 8)) // heads, 1)
    if n_tokens:
        _qk_norm_rope_kernel[(triton.cdiv(n_tokens, tokens) * ((n_heads + n_kv_heads) // heads),)](
            qkv_TC,
            positions_T,
            q_weight_E,
            k_weight_E,
            cos_PF,
            sin_PF,
            n_tokens,
            qkv_TC.stride(0),
            eps,
            n_heads,
            n_kv_heads,
            cos_PF.shape[1],
            tokens,
            heads,
            num_warps=num_warps,
        )


def _head_block(n_heads: int, n_kv_heads: int) -> int:
    """Heads one program takes: a power of two, at most 8, that divides both parts, so no program spans them."""
    both = math.gcd(n_heads, n_kv_heads)
    return min(both & -both, 8)

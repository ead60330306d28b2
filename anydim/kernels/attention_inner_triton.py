"""The inner loop of the attention kernels: a running softmax over blocks of keys, and rows rotated as they are read.

In base 2 with float32 accumulators (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135).
Imported only when Triton is chosen. It knows one program's rows; it knows no plan.

Shapes: E width of a head, M query rows of a program (token by head), N keys of a block.
"""
# mypy: disable-error-code="import-untyped,import-not-found,untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rotated(
    head_ptr: tl.tensor,
    inside_M1: tl.tensor,
    position_M: tl.tensor,
    norm_ptr: tl.tensor,
    cos_ptr: tl.tensor,
    sin_ptr: tl.tensor,
    eps: tl.tensor,
    HEAD_DIM: tl.constexpr,
) -> tl.tensor:
    """Some heads, RMS-normalised and rotated in float32. head_ptr: where each begins, (M, 1).

    Each element is read twice, the second time as the other half's partner, which the cache serves.
    """
    half: tl.constexpr = HEAD_DIM // 2
    e_E = tl.arange(0, HEAD_DIM)
    other_E = (e_E + half) % HEAD_DIM
    x_ME = tl.load(head_ptr + e_E[None, :], mask=inside_M1, other=0.0).to(tl.float32)
    y_ME = tl.load(head_ptr + other_E[None, :], mask=inside_M1, other=0.0).to(tl.float32)
    scale_M1 = tl.rsqrt(tl.sum(x_ME * x_ME, axis=1) / HEAD_DIM + eps)[:, None]
    x_ME *= scale_M1 * tl.load(norm_ptr + e_E).to(tl.float32)[None, :]
    y_ME *= scale_M1 * tl.load(norm_ptr + other_E).to(tl.float32)[None, :]
    angle_ME = position_M[:, None] * half + (e_E % half)[None, :]
    cos_ME = tl.load(cos_ptr + angle_ME, mask=inside_M1, other=0.0)
    sin_ME = tl.load(sin_ptr + angle_ME, mask=inside_M1, other=0.0)
    return x_ME * cos_ME + tl.where(e_E < half, -1.0, 1.0)[None, :] * y_ME * sin_ME


@triton.jit
def over_keys(
    acc_ME: tl.tensor,
    sum_M: tl.tensor,
    max_M: tl.tensor,
    q_ME: tl.tensor,
    k_ptr: tl.tensor,
    descriptor: tl.tensor,
    token_M: tl.tensor,
    low: tl.tensor,
    high: tl.tensor,
    end: tl.tensor,
    stride: tl.tensor,
    k_column: tl.tensor,
    scale_log2: tl.tensor,
    position_ptr: tl.tensor,
    k_norm_ptr: tl.tensor,
    cos_ptr: tl.tensor,
    sin_ptr: tl.tensor,
    eps: tl.tensor,
    V_AFTER_K: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    KEYS: tl.constexpr,
    MASKED: tl.constexpr,
    CAUSAL: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
    RAW: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """Take the keys low..high into the running softmax of the rows. k_ptr: this head's key at token `low`.

    RAW: keys are neither normalised nor rotated.
    """
    n_N = tl.arange(0, KEYS)
    offset_NE = n_N[:, None] * stride + tl.arange(0, HEAD_DIM)[None, :]
    for key in tl.range(low, high, KEYS):
        inside_N1 = (key + n_N < end)[:, None]
        if RAW:
            position_N = tl.load(position_ptr + key + n_N, mask=key + n_N < end, other=0)
            head_N1 = k_ptr + n_N[:, None] * stride
            rotated_NE = rotated(head_N1, inside_N1, position_N, k_norm_ptr, cos_ptr, sin_ptr, eps, HEAD_DIM)
            k_NE = rotated_NE.to(q_ME.dtype)
        elif DESCRIPTORS:
            k_NE = descriptor.load([key, k_column])
        elif MASKED:
            k_NE = tl.load(k_ptr + offset_NE, mask=inside_N1, other=0.0)
        else:
            k_NE = tl.load(k_ptr + offset_NE)
        score_MN = tl.dot(q_ME, tl.trans(k_NE), input_precision=PRECISION)
        if MASKED:
            # A query past the end of its text is never stored, so causal rows need no mask of the end.
            seen_MN = token_M[:, None] >= (key + n_N)[None, :] if CAUSAL else (key + n_N < end)[None, :]
            score_MN = tl.where(seen_MN, score_MN, float("-inf"))
        new_max_M = tl.maximum(max_M, tl.max(score_MN, axis=1) * scale_log2)
        p_MN = tl.exp2(score_MN * scale_log2 - new_max_M[:, None])
        decay_M = tl.exp2(max_M - new_max_M)
        sum_M = sum_M * decay_M + tl.sum(p_MN, axis=1)
        acc_ME = acc_ME * decay_M[:, None]
        if DESCRIPTORS:
            v_NE = descriptor.load([key, k_column + V_AFTER_K])
        elif MASKED:
            # Zeros, since weight 0 times whatever lies behind the text could be NaN.
            v_NE = tl.load(k_ptr + V_AFTER_K + offset_NE, mask=inside_N1, other=0.0)
        else:
            v_NE = tl.load(k_ptr + V_AFTER_K + offset_NE)
        acc_ME = tl.dot(p_MN.to(v_NE.dtype), v_NE, acc_ME, input_precision=PRECISION)
        max_M = new_max_M
        k_ptr += KEYS * stride
    return acc_ME, sum_M, max_M

"""Attention over a packed batch as Triton kernels, straight from the strided fused qkv block.

Equal to attention.py. Imported only when Triton is chosen. Both kernels keep a running softmax in base 2 with
float32 accumulators (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135).

Shapes: T tokens, C columns (all q heads, then all k heads, then all v heads), E width of a head,
O = n_heads * E, M query rows of a program (token by head), N keys of a block (or tiles of the plan),
R rows (one a text), S text slots.

Where texts share prefixes, the prefix's keys come first and every query sees them all; then the text's own.
"""
# mypy: disable-error-code="import-untyped,import-not-found,untyped-decorator"

from __future__ import annotations

import math
from typing import Final

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from anydim.kernels.launch import shared_memory
from anydim.kernels.plan import AttentionPlan, stages_that_fit

LOG2_E: Final = math.log2(math.e)


@triton.jit
def _over_keys(
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
    V_AFTER_K: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    KEYS: tl.constexpr,
    MASKED: tl.constexpr,
    CAUSAL: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """Take the keys low..high into the running softmax of the rows. k_ptr: this head's key at token `low`."""
    n_N = tl.arange(0, KEYS)
    offset_NE = n_N[:, None] * stride + tl.arange(0, HEAD_DIM)[None, :]
    for key in tl.range(low, high, KEYS):
        inside_N1 = (key + n_N < end)[:, None]
        if DESCRIPTORS:
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


@triton.jit(do_not_specialize=["n_tiles"], do_not_specialize_on_alignment=["tile_ptr", "prefix_ptr"])
def _attend_kernel(
    qkv_ptr: tl.tensor,
    descriptor: tl.tensor,
    out_ptr: tl.tensor,
    tile_ptr: tl.tensor,
    prefix_ptr: tl.tensor,
    n_tiles: tl.tensor,
    stride: tl.tensor,
    scale_log2: tl.tensor,
    N_HEADS: tl.constexpr,
    N_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    TOKENS: tl.constexpr,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    CAUSAL: tl.constexpr,
    SPLIT: tl.constexpr,
    HEADS_FIRST: tl.constexpr,
    DESCRIPTORS: tl.constexpr,
    PREFIXED: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    blocks: tl.constexpr = N_HEADS // HEADS
    pid = tl.program_id(0)
    if HEADS_FIRST:
        tile, block = pid // blocks, pid % blocks
    else:
        tile, block = pid % n_tiles, pid // n_tiles
    start = tl.load(tile_ptr + tile * 3)
    end = tl.load(tile_ptr + tile * 3 + 1)
    first = tl.load(tile_ptr + tile * 3 + 2)
    if first >= end:
        return

    m_M = tl.arange(0, TOKENS * HEADS)
    e_E = tl.arange(0, HEAD_DIM)
    token_M = first + m_M // HEADS
    column_M = (block * HEADS + m_M % HEADS) * HEAD_DIM
    inside_M1 = (token_M < end)[:, None]
    q_ptrs = qkv_ptr + (token_M.to(tl.int64) * stride + column_M)[:, None] + e_E[None, :]
    q_ME = tl.load(q_ptrs, mask=inside_M1, other=0.0)
    acc_ME = tl.zeros([TOKENS * HEADS, HEAD_DIM], dtype=tl.float32)
    sum_M = tl.zeros([TOKENS * HEADS], dtype=tl.float32)
    max_M = tl.full([TOKENS * HEADS], float("-inf"), dtype=tl.float32)

    k_column = (N_HEADS + block * HEADS * N_KV_HEADS // N_HEADS) * HEAD_DIM
    k_ptr = qkv_ptr + k_column
    v_after_k: tl.constexpr = N_KV_HEADS * HEAD_DIM
    if PREFIXED:
        low = tl.load(prefix_ptr + tile * 2)
        high = tl.load(prefix_ptr + tile * 2 + 1)
        if SPLIT:
            whole = low + (high - low) // KEYS * KEYS
            acc_ME, sum_M, max_M = _over_keys(
                acc_ME, sum_M, max_M, q_ME, k_ptr + low.to(tl.int64) * stride, descriptor, token_M,
                low, whole, high, stride, k_column, scale_log2,
                v_after_k, HEAD_DIM, KEYS, False, False, DESCRIPTORS, PRECISION,
            )  # fmt: skip
            low = whole
        acc_ME, sum_M, max_M = _over_keys(
            acc_ME, sum_M, max_M, q_ME, k_ptr + low.to(tl.int64) * stride, descriptor, token_M,
            low, high, high, stride, k_column, scale_log2,
            v_after_k, HEAD_DIM, KEYS, True, False, False, PRECISION,
        )  # fmt: skip
    low = start
    if SPLIT:
        # Keys before `low` are whole blocks that every query of the tile sees.
        seen = first - start + 1 if CAUSAL else end - start
        low += seen // KEYS * KEYS
        acc_ME, sum_M, max_M = _over_keys(
            acc_ME, sum_M, max_M, q_ME, k_ptr + start.to(tl.int64) * stride, descriptor, token_M,
            start, low, end, stride, k_column, scale_log2,
            v_after_k, HEAD_DIM, KEYS, False, CAUSAL, DESCRIPTORS, PRECISION,
        )  # fmt: skip
    high = tl.minimum(end, first + TOKENS) if CAUSAL else end
    acc_ME, sum_M, max_M = _over_keys(
        acc_ME, sum_M, max_M, q_ME, k_ptr + low.to(tl.int64) * stride, descriptor, token_M,
        low, high, end, stride, k_column, scale_log2,
        v_after_k, HEAD_DIM, KEYS, True, CAUSAL, False, PRECISION,
    )  # fmt: skip
    out_ptrs = out_ptr + (token_M.to(tl.int64) * (N_HEADS * HEAD_DIM) + column_M)[:, None] + e_E[None, :]
    tl.store(out_ptrs, acc_ME / sum_M[:, None], mask=inside_M1)


@triton.jit(do_not_specialize_on_alignment=["cu_ptr", "prefix_ptr"])
def _attend_rows_kernel(
    q_ptr: tl.tensor,
    kv_ptr: tl.tensor,
    out_ptr: tl.tensor,
    cu_ptr: tl.tensor,
    prefix_ptr: tl.tensor,
    q_stride: tl.tensor,
    kv_stride: tl.tensor,
    k_column: tl.tensor,
    scale_log2: tl.tensor,
    N_HEADS: tl.constexpr,
    N_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    PREFIXED: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    group: tl.constexpr = N_HEADS // N_KV_HEADS
    row = tl.program_id(0) // N_KV_HEADS
    kv_head = tl.program_id(0) % N_KV_HEADS
    start = tl.load(cu_ptr + row)
    end = tl.load(cu_ptr + row + 1)
    m_M = tl.arange(0, ROWS)
    inside_M1 = (m_M < group)[:, None]
    head_ME = ((kv_head * group + m_M) * HEAD_DIM)[:, None] + tl.arange(0, HEAD_DIM)[None, :]
    q_ME = tl.load(q_ptr + row.to(tl.int64) * q_stride + head_ME, mask=inside_M1, other=0.0)
    acc_ME = tl.zeros([ROWS, HEAD_DIM], dtype=tl.float32)
    sum_M = tl.zeros([ROWS], dtype=tl.float32)
    max_M = tl.full([ROWS], float("-inf"), dtype=tl.float32)
    v_after_k: tl.constexpr = N_KV_HEADS * HEAD_DIM
    k_ptr = kv_ptr + k_column + kv_head * HEAD_DIM
    if PREFIXED:
        low = tl.load(prefix_ptr + row * 2)
        high = tl.load(prefix_ptr + row * 2 + 1)
        acc_ME, sum_M, max_M = _over_keys(
            acc_ME, sum_M, max_M, q_ME, k_ptr + low.to(tl.int64) * kv_stride, kv_ptr, m_M,
            low, high, high, kv_stride, k_column, scale_log2,
            v_after_k, HEAD_DIM, KEYS, True, False, False, PRECISION,
        )  # fmt: skip
    acc_ME, sum_M, max_M = _over_keys(
        acc_ME, sum_M, max_M, q_ME, k_ptr + start.to(tl.int64) * kv_stride, kv_ptr, m_M,
        start, end, end, kv_stride, k_column, scale_log2,
        v_after_k, HEAD_DIM, KEYS, True, False, False, PRECISION,
    )  # fmt: skip
    # An empty text has no weights: 0 / 1 rather than 0 / 0.
    sum_M = tl.where(end > start, sum_M, 1.0)
    out_ptrs = out_ptr + row.to(tl.int64) * (N_HEADS * HEAD_DIM) + head_ME
    tl.store(out_ptrs, acc_ME / sum_M[:, None], mask=inside_M1)


def attend(qkv_TC: Tensor, plan: AttentionPlan, n_heads: int, n_kv_heads: int, scale: float, causal: bool) -> Tensor:
    """Equal to `attention.attend`. The plan must be bound to the tensor's device; columns must be contiguous."""
    n_tokens, columns = qkv_TC.shape
    head_dim = columns // (n_heads + 2 * n_kv_heads)
    shape = plan.shape
    assert plan.tiles_N3 is not None, "the plan is bound to no device"
    assert causal or not plan.prefix_groups, "a prefix that sees what follows is not the same in every text"
    out_TO = torch.empty((n_tokens, n_heads * head_dim), dtype=qkv_TC.dtype, device=qkv_TC.device)
    if not plan.n_tiles:
        return out_TO
    copy_engine = shape.descriptors and _fits_copy_engine(qkv_TC)
    descriptor = TensorDescriptor.from_tensor(qkv_TC, [shape.block_keys, head_dim]) if copy_engine else qkv_TC
    _attend_kernel[(plan.n_tiles * (n_heads // shape.heads),)](
        qkv_TC,
        descriptor,
        out_TO,
        plan.tiles_N3,
        plan.tiles_N3 if plan.tile_prefixes_N2 is None else plan.tile_prefixes_N2,
        plan.n_tiles,
        qkv_TC.stride(0),
        scale * LOG2_E,
        n_heads,
        n_kv_heads,
        head_dim,
        shape.tokens,
        shape.heads,
        shape.block_keys,
        causal,
        shape.split,
        shape.heads_first,
        copy_engine,
        plan.tile_prefixes_N2 is not None,
        _precision(qkv_TC.dtype),
        num_warps=shape.num_warps,
        num_stages=stages_that_fit(shape, head_dim * qkv_TC.element_size(), shared_memory(qkv_TC.device)),
    )
    return out_TO


def attend_rows(
    q_RO: Tensor, kv_TC: Tensor, plan: AttentionPlan, n_heads: int, n_kv_heads: int, scale: float
) -> Tensor:
    """Equal to `attention.attend_rows`: one program a row and kv head, bound by the reading of the keys."""
    rows = q_RO.shape[0]
    head_dim = q_RO.shape[1] // n_heads
    assert plan.cu_seqlens_S1 is not None, "the plan is bound to no device"
    assert rows <= plan.n_texts, "more rows than texts"
    out_RO = torch.empty((rows, n_heads * head_dim), dtype=q_RO.dtype, device=q_RO.device)
    if not rows:
        return out_RO
    # Exact products keep whole operands in registers, so float32 takes the small block.
    long = plan.max_length > 64 and q_RO.dtype != torch.float32
    _attend_rows_kernel[(rows * n_kv_heads,)](
        q_RO,
        kv_TC,
        out_RO,
        plan.cu_seqlens_S1,
        plan.cu_seqlens_S1 if plan.text_prefixes_S2 is None else plan.text_prefixes_S2,
        q_RO.stride(0),
        kv_TC.stride(0),
        kv_TC.shape[1] - 2 * n_kv_heads * head_dim,
        scale * LOG2_E,
        n_heads,
        n_kv_heads,
        head_dim,
        max(16, 1 << (n_heads // n_kv_heads - 1).bit_length()),
        64 if long else 32,
        plan.text_prefixes_S2 is not None,
        _precision(q_RO.dtype),
        num_warps=4,
        num_stages=3 if long else 1,
    )
    return out_RO


def _fits_copy_engine(block_TC: Tensor) -> bool:
    """Whether the bulk copy engine reads this block: Hopper or later, rows and start on 16 bytes."""
    aligned = block_TC.stride(0) * block_TC.element_size() % 16 == 0 and block_TC.data_ptr() % 16 == 0
    return aligned and (not block_TC.is_cuda or torch.cuda.get_device_capability(block_TC.device) >= (9, 0))


def _precision(dtype: torch.dtype) -> str:
    """Float32 products stay exact: by default they would be cut to TF32's 10 bits."""
    return "ieee" if dtype == torch.float32 else "tf32"

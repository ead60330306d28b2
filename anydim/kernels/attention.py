"""Attention over a packed batch, straight from the fused qkv block, in plain torch.

Texts of equal length that lie side by side are one view, so nothing is padded and nothing masked.
Works on any device and dtype; twins are attention_triton.py and attention_flash.py. Knows plans, not models.

Shapes: T tokens, C columns (all q heads, then all k heads, then all v heads), H heads, E width of a head,
O = n_heads * E, B texts of one length, L their tokens, R rows (one a text), S text slots, N tiles, W words of
the plan's table.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from anydim.kernels.plan import AttentionPlan


def bind_plan(plan: AttentionPlan, table_W: Tensor) -> AttentionPlan:
    """The plan with its table on a device: `table_W` must hold a copy of `plan.table_W` (int32) by the time it is used.

    A CUDA graph binds its static buffer once; a batch's copy into that buffer is then the whole update.
    """
    return replace(
        plan,
        cu_seqlens_S1=table_W[: plan.n_texts + 1],
        tiles_N3=table_W[plan.tiles_at : plan.tiles_at + 3 * plan.n_tiles].view(plan.n_tiles, 3),
    )


def place_plan(plan: AttentionPlan, device: torch.device | str) -> AttentionPlan:
    """Copy the plan's table to the device, as one tensor, and bind it."""
    return bind_plan(plan, torch.from_numpy(plan.table_W).to(device))


def attend(qkv_TC: Tensor, plan: AttentionPlan, n_heads: int, n_kv_heads: int, scale: float, causal: bool) -> Tensor:
    """Scaled dot-product attention of every token over its own text (Vaswani et al. 2017, arXiv 1706.03762).

    Query head h reads kv head h // (n_heads // n_kv_heads). causal: a token sees itself and what comes before it.
    Returns out_TO. Rows of tokens that belong to no text are undefined.
    """
    heads_THE = _heads(qkv_TC, qkv_TC.shape[1] // (n_heads + 2 * n_kv_heads))
    out_THE = torch.empty_like(heads_THE[:, :n_heads], memory_format=torch.contiguous_format)
    for first, count, length in plan.groups:
        last = first + count * length
        if last == first:
            continue
        block_BHLE = _texts(heads_THE[first:last], count).transpose(1, 2)
        q_BHLE, k_BHLE, v_BHLE = block_BHLE.split_with_sizes((n_heads, n_kv_heads, n_kv_heads), dim=1)
        mixed_BHLE = _mix(q_BHLE, k_BHLE, v_BHLE, scale, causal)
        _texts(out_THE[first:last], count).copy_(mixed_BHLE.transpose(1, 2))
    return out_THE.flatten(1)


def attend_rows(
    q_RO: Tensor, kv_TC: Tensor, plan: AttentionPlan, n_heads: int, n_kv_heads: int, scale: float
) -> Tensor:
    """Attention of one query row a text over that whole text: row r belongs to text r of the plan.

    With the text's last token as the query this equals the causal `attend` there; for a bidirectional model any token
    will do. The last 2 * n_kv_heads heads of a row of `kv_TC` are its keys and values, so that both the
    whole qkv block and one of keys and values alone will do. Returns out_RO; rows of empty texts are zero.
    """
    head_dim = q_RO.shape[1] // n_heads
    q_RHE = _heads(q_RO, head_dim)
    kv_THE = _heads(kv_TC, head_dim)[:, -2 * n_kv_heads :]
    out_RHE = torch.zeros_like(q_RHE, memory_format=torch.contiguous_format)
    row = 0
    for first, count, length in plan.groups:
        if length:
            block_BHLE = _texts(kv_THE[first : first + count * length], count).transpose(1, 2)
            k_BHLE, v_BHLE = block_BHLE.chunk(2, dim=1)
            mixed_BH1E = _mix(q_RHE[row : row + count, :, None], k_BHLE, v_BHLE, scale, causal=False)
            out_RHE[row : row + count] = mixed_BH1E[:, :, 0]
        row += count
    return out_RHE.flatten(1)


def _heads(x_TC: Tensor, head_dim: int) -> Tensor:
    return x_TC.view(x_TC.shape[0], x_TC.shape[1] // head_dim, head_dim)


def _texts(x_THE: Tensor, count: int) -> Tensor:
    return x_THE.view(count, x_THE.shape[0] // count, x_THE.shape[1], x_THE.shape[2])


def _mix(q_BHLE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor, scale: float, causal: bool) -> Tensor:
    grouped = q_BHLE.shape[1] != k_BHLE.shape[1]
    return functional.scaled_dot_product_attention(
        q_BHLE, k_BHLE, v_BHLE, is_causal=causal, scale=scale, enable_gqa=grouped
    )

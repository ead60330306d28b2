"""Attention over a packed batch, straight from the fused qkv block, in plain torch.

Texts of equal length that lie side by side are one view, so nothing is padded and nothing masked. Before texts that
share a prefix its rows are repeated: only the products of the model are saved then.
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

from anydim.kernels.plan import AttentionPlan, Group


def bind_plan(plan: AttentionPlan, table_W: Tensor) -> AttentionPlan:
    """The plan with its table on a device: `table_W` must hold a copy of `plan.table_W` (int32) by the time it is used.

    A CUDA graph binds its static buffer once; a batch's copy into that buffer is then the whole update.
    """
    tiles = plan.tiles_at
    before = tiles + 3 * plan.n_tiles
    bound = replace(
        plan,
        cu_seqlens_S1=table_W[: plan.n_texts + 1],
        tiles_N3=table_W[tiles:before].view(plan.n_tiles, 3),
    )
    if not plan.prefix_groups:
        return bound
    texts = before + 2 * plan.n_tiles
    return replace(
        bound,
        tile_prefixes_N2=table_W[before:texts].view(plan.n_tiles, 2),
        text_prefixes_S2=table_W[texts : texts + 2 * plan.n_texts].view(plan.n_texts, 2),
    )


def place_plan(plan: AttentionPlan, device: torch.device | str) -> AttentionPlan:
    """Copy the plan's table to the device, as one tensor, and bind it."""
    return bind_plan(plan, torch.from_numpy(plan.table_W).to(device))


def attend(qkv_TC: Tensor, plan: AttentionPlan, n_heads: int, n_kv_heads: int, scale: float, causal: bool) -> Tensor:
    """Scaled dot-product attention of every token over its own text (Vaswani et al. 2017, arXiv 1706.03762).

    Query head h reads kv head h // (n_heads // n_kv_heads). causal: a token sees itself and what comes before it,
    its text's shared prefix first; a plan with prefixes must be causal.
    Returns out_TO. Rows of tokens that belong to no text are undefined.
    """
    assert causal or not plan.prefix_groups, "a prefix that sees what follows is not the same in every text"
    heads_THE = _heads(qkv_TC, qkv_TC.shape[1] // (n_heads + 2 * n_kv_heads))
    out_THE = torch.empty_like(heads_THE[:, :n_heads], memory_format=torch.contiguous_format)
    for group in plan.groups + plan.prefix_groups:
        if not group.length:
            continue
        # The prefix's queries run along and are dropped: cheaper than a mask, and the same sums as without sharing.
        block_BHLE = _texts(heads_THE, group).transpose(1, 2)
        q_BHLE, k_BHLE, v_BHLE = block_BHLE.split_with_sizes((n_heads, n_kv_heads, n_kv_heads), dim=1)
        mixed_BHLE = _mix(q_BHLE, k_BHLE, v_BHLE, scale, causal)[:, :, -group.length :]
        _own(out_THE, group).copy_(mixed_BHLE.transpose(1, 2))
    return out_THE.flatten(1)


def attend_rows(
    q_RO: Tensor, kv_TC: Tensor, plan: AttentionPlan, n_heads: int, n_kv_heads: int, scale: float
) -> Tensor:
    """Attention of one query row a text over that whole text, shared prefix included: row r belongs to text r.

    With the text's last token as the query this equals the causal `attend` there; for a bidirectional model any token
    will do. The last 2 * n_kv_heads heads of a row of `kv_TC` are its keys and values, so that both the
    whole qkv block and one of keys and values alone will do. Returns out_RO; rows of empty texts are zero.
    """
    head_dim = q_RO.shape[1] // n_heads
    q_RHE = _heads(q_RO, head_dim)
    kv_THE = _heads(kv_TC, head_dim)[:, -2 * n_kv_heads :]
    out_RHE = torch.zeros_like(q_RHE, memory_format=torch.contiguous_format)
    row = 0
    for group in plan.groups:
        last = row + group.texts
        if group.length:
            k_BHLE, v_BHLE = _texts(kv_THE, group).transpose(1, 2).chunk(2, dim=1)
            out_RHE[row:last] = _mix(q_RHE[row:last, :, None], k_BHLE, v_BHLE, scale, causal=False)[:, :, 0]
        row = last
    return out_RHE.flatten(1)


def _heads(x_TC: Tensor, head_dim: int) -> Tensor:
    return x_TC.view(x_TC.shape[0], x_TC.shape[1] // head_dim, head_dim)


def _own(x_THE: Tensor, group: Group) -> Tensor:
    """What the texts of a group have of their own: (B, L, H, E)."""
    last = group.first + group.texts * group.length
    return x_THE[group.first : last].view(group.texts, group.length, x_THE.shape[1], x_THE.shape[2])


def _texts(x_THE: Tensor, group: Group) -> Tensor:
    """The whole texts of a group, its prefix repeated before each: (B, L, H, E)."""
    if group.prefix == group.prefix_end:
        return _own(x_THE, group)
    prefix_THE = x_THE[group.prefix : group.prefix_end]
    return torch.cat((prefix_THE.expand(group.texts, *prefix_THE.shape), _own(x_THE, group)), dim=1)


def _mix(q_BHLE: Tensor, k_BHLE: Tensor, v_BHLE: Tensor, scale: float, causal: bool) -> Tensor:
    grouped = q_BHLE.shape[1] != k_BHLE.shape[1]
    return functional.scaled_dot_product_attention(
        q_BHLE, k_BHLE, v_BHLE, is_causal=causal, scale=scale, enable_gqa=grouped
    )

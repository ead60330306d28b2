"""Attention over a packed batch through the FlashAttention-2 kernel that ships with torch (CUDA, 16-bit).

The choice for a GPU without Triton; it reads no shared prefixes. Knows plans bound to a device, not models. The
operator is called directly, since `torch.nn.attention.varlen` takes grouped heads only in later releases of torch.

Shapes: T tokens, C columns (all q heads, then all k heads, then all v heads), H heads, E width of a head,
O = n_heads * E, R rows (one a text), S text slots.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anydim.kernels.plan import AttentionPlan


def attend(qkv_TC: Tensor, plan: AttentionPlan, n_heads: int, n_kv_heads: int, scale: float, causal: bool) -> Tensor:
    """Equal to `attention.attend` (Dao 2023, arXiv 2307.08691). The plan must be bound to the tensor's device."""
    n = n_heads + 2 * n_kv_heads
    heads_THE = qkv_TC.view(qkv_TC.shape[0], n, qkv_TC.shape[1] // n)
    q_THE, k_THE, v_THE = heads_THE.split_with_sizes((n_heads, n_kv_heads, n_kv_heads), dim=1)
    cu_S1 = plan.cu_seqlens_S1
    assert not plan.prefix_groups, "this kernel reads no shared prefixes"
    assert cu_S1 is not None, "the plan is bound to no device"
    return _flash(q_THE, k_THE, v_THE, cu_S1, cu_S1, plan.max_length, plan.max_length, scale, causal).flatten(1)


def attend_rows(
    q_RO: Tensor, kv_TC: Tensor, plan: AttentionPlan, n_heads: int, n_kv_heads: int, scale: float
) -> Tensor:
    """Equal to `attention.attend_rows`: texts of one query token each."""
    head_dim = q_RO.shape[1] // n_heads
    q_RHE = q_RO.view(q_RO.shape[0], n_heads, head_dim)
    heads_THE = kv_TC.view(kv_TC.shape[0], kv_TC.shape[1] // head_dim, head_dim)
    k_THE, v_THE = heads_THE[:, -2 * n_kv_heads :].chunk(2, dim=1)
    assert not plan.prefix_groups, "this kernel reads no shared prefixes"
    assert plan.cu_seqlens_S1 is not None, "the plan is bound to no device"
    cu_rows_R1 = torch.arange(len(q_RO) + 1, dtype=torch.int32, device=q_RO.device)
    cu_R1 = plan.cu_seqlens_S1[: len(q_RO) + 1]
    return _flash(q_RHE, k_THE, v_THE, cu_rows_R1, cu_R1, 1, plan.max_length, scale, False).flatten(1)


def _flash(
    q_THE: Tensor,
    k_THE: Tensor,
    v_THE: Tensor,
    cu_q_S1: Tensor,
    cu_k_S1: Tensor,
    max_q: int,
    max_k: int,
    scale: float,
    causal: bool,
) -> Tensor:
    found: tuple[Tensor, ...] = torch.ops.aten._flash_attention_forward(
        q_THE, k_THE, v_THE, cu_q_S1, cu_k_S1, max_q, max_k, 0.0, causal, False, scale=scale
    )
    return found[0]

"""Attention for long causal texts: whole blocks of each through cuDNN's dense kernel, the rest through our own.

cuDNN's kernel is the fastest for long texts on Hopper, but builds a plan for each shape it meets, which takes about
50 ms once a thread. So the plan of a batch gives it blocks of few lengths (`plan.dense_length`): the first tokens of
each text, which need no key behind them. Bfloat16 on CUDA; knows plans bound to a device, not models.

Shapes: T tokens, C columns (all q heads, then all k heads, then all v heads), H heads, E width of a head, B texts of
one length, L their tokens, O = n_heads * E.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anydim.kernels import attention_triton
from anydim.kernels.plan import AttentionPlan, Dense


def works(device: torch.device) -> bool:
    """Whether cuDNN has such a kernel for this device: tried out, grouped heads and strides included."""
    if torch.cuda.get_device_capability(device) < (9, 0):
        return False  # nothing was measured there
    try:
        _dense(torch.zeros(128, 4 * 64, dtype=torch.bfloat16, device=device), Dense(0, 1, 128, 128), 2, 1, 1.0)
    except RuntimeError:
        return False
    return True


def attend(qkv_TC: Tensor, plan: AttentionPlan, n_heads: int, n_kv_heads: int, scale: float, causal: bool) -> Tensor:
    """Equal to `attention.attend`. The plan must be bound to the tensor's device; columns must be contiguous."""
    if not plan.dense:
        return attention_triton.attend(qkv_TC, plan, n_heads, n_kv_heads, scale, causal)
    assert causal, "only what needs no later key can be split from its text"
    blocks = [block for dense in plan.dense for block in _blocks(dense)]
    mixed = [_dense(qkv_TC, block, n_heads, n_kv_heads, scale) for block in blocks]
    if len(mixed) == 1 and len(mixed[0]) == len(qkv_TC):
        return mixed[0]
    out_TO = attention_triton.attend(qkv_TC, plan, n_heads, n_kv_heads, scale, causal)
    for block, mixed_TO in zip(blocks, mixed, strict=True):
        out_TO[block.first : block.end] = mixed_TO
    return out_TO


def _blocks(dense: Dense) -> list[Dense]:
    """What one call takes: tokens that lie side by side, since cuDNN's plans are for strides as well as for lengths.

    Texts that are dense to their end are one block; of others each text's first tokens are one.
    """
    if dense.tokens == dense.length:
        return [dense]
    starts = range(dense.first, dense.end, dense.length)
    return [Dense(start, 1, dense.tokens, dense.tokens) for start in starts]


def _dense(qkv_TC: Tensor, block: Dense, n_heads: int, n_kv_heads: int, scale: float) -> Tensor:
    """Attention within each text of a block: (T, O)."""
    heads = n_heads + 2 * n_kv_heads
    block_BLHE = qkv_TC[block.first : block.end].view(block.texts, block.length, heads, -1)
    q_BHLE, k_BHLE, v_BHLE = block_BLHE.transpose(1, 2).split_with_sizes((n_heads, n_kv_heads, n_kv_heads), dim=1)
    out_BHLE: Tensor = torch.ops.aten._scaled_dot_product_cudnn_attention(
        q_BHLE, k_BHLE, v_BHLE, None, False, 0.0, True, False, scale=scale
    )[0]
    return out_BHLE.transpose(1, 2).flatten(2).flatten(0, 1)

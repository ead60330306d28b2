"""Steps of a decoder layer joined with their matrix products, in plain torch: what a forward of few tokens runs.

With few tokens a layer waits for its weights, not for arithmetic, and every launch costs as much as a small product.
These functions name the joints; their Triton twins (fused_triton.py) run each as one kernel. Any device and dtype.
It knows no model.

Shapes: T tokens, D hidden width, I channels in, O channels out, F fused gate and up columns, G = F/2, C columns of the
fused qkv block (all q heads, then all k heads, then all v heads), E width of a head, P positions, F also frequencies
in a rotary table.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from anydim.kernels import attention, rope
from anydim.kernels.activation import silu_mul
from anydim.kernels.plan import AttentionPlan


def linear(x_TI: Tensor, weight_OI: Tensor) -> Tensor:
    """The product: out_TO."""
    return functional.linear(x_TI, weight_OI)


def gate_up(x_TD: Tensor, weight_FD: Tensor) -> Tensor:
    """The gate and up products, and SiLU(gate) * up (Shazeer 2020, arXiv 2002.05202): out_TG."""
    return silu_mul(functional.linear(x_TD, weight_FD))


def linear_add_(x_TI: Tensor, weight_DI: Tensor, residual_TD: Tensor) -> None:
    """The product, added to the residual stream IN PLACE."""
    residual_TD.add_(functional.linear(x_TI, weight_DI))


def attend_raw(
    qkv_TC: Tensor,
    positions_T: Tensor,
    norms_EE: tuple[Tensor, Tensor],
    tables_PF: tuple[Tensor, Tensor],
    plan: AttentionPlan,
    n_heads: int,
    n_kv_heads: int,
    eps: float,
) -> Tensor:
    """Causal attention from a block that is neither normalised nor rotated: out_TO.

    norms_EE: the weights of the q and the k norm. tables_PF: cosines and sines of `rope_tables`. The block itself may
    be changed.
    """
    rope.qk_norm_rope_(qkv_TC, positions_T, *norms_EE, *tables_PF, n_heads, n_kv_heads, eps)
    head_dim = 2 * tables_PF[0].shape[1]
    return attention.attend(qkv_TC, plan, n_heads, n_kv_heads, head_dim**-0.5, True)

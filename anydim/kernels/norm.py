"""RMSNorm, alone and joined with the residual addition, in plain torch.

Works on any device and dtype; the Triton twin is norm_triton.py. Knows nothing of layers or batches.

Shapes: T tokens, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """Root-mean-square layer norm of each row (Zhang and Sennrich 2019, arXiv 1910.07467), as Qwen3 has it.

    The arithmetic is float32, rounded once to x's dtype. Returns y_TD.
    """
    x32_TD = x_TD.float()
    scale_T1 = torch.rsqrt(x32_TD.square().mean(-1, keepdim=True) + eps)
    return (weight_D.float() * (x32_TD * scale_T1)).to(x_TD.dtype)


def add_rms_norm(x_TD: Tensor, residual_TD: Tensor, weight_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Add x to the residual stream, then normalise the sum. Returns (y_TD in x's dtype, residual_TD).

    `residual_TD` is updated IN PLACE and returned; the norm is that of the stored (rounded) sum.
    """
    residual_TD.copy_(residual_TD.float() + x_TD.float())
    return rms_norm(residual_TD, weight_D, eps).to(x_TD.dtype), residual_TD

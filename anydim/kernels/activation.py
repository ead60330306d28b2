"""The gated activation of a SwiGLU feed-forward block, in plain torch.

Works on any device and dtype; the Triton twin is activation_triton.py. Knows nothing of layers.

Shapes: T tokens, F columns of the fused gate and up block, G = F/2.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def silu_mul(gate_up_TF: Tensor) -> Tensor:
    """SiLU(gate) * up (Shazeer 2020, arXiv 2002.05202); gate is the first half of a row, up the second.

    The arithmetic is float32, rounded once. Returns a tensor (T, F/2) of the same dtype.
    """
    gate_TG, up_TG = gate_up_TF.chunk(2, dim=-1)
    return (functional.silu(gate_TG.float()) * up_TG.float()).to(gate_up_TF.dtype)

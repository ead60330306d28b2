"""The gated activation of a SwiGLU feed-forward block as a Triton kernel.

Equal to activation.py. Imported only when Triton is chosen. Rows must be contiguous along F.

Shapes: T tokens, F columns of the fused gate and up block, G = F/2.
"""
# mypy: disable-error-code="import-untyped,import-not-found,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _silu_mul_kernel(
    gate_up_ptr: tl.tensor,
    out_ptr: tl.tensor,
    stride: tl.tensor,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    blocks: tl.constexpr = (WIDTH + BLOCK - 1) // BLOCK
    pid = tl.program_id(0)
    row = (pid // blocks).to(tl.int64)
    g_G = (pid % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside_G = g_G < WIDTH
    gate_ptrs = gate_up_ptr + row * stride + g_G
    gate_G = tl.load(gate_ptrs, mask=inside_G, other=0.0).to(tl.float32)
    up_G = tl.load(gate_ptrs + WIDTH, mask=inside_G, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * WIDTH + g_G, gate_G * tl.sigmoid(gate_G) * up_G, mask=inside_G)


def silu_mul(gate_up_TF: Tensor, block: int = 2048, num_warps: int = 4) -> Tensor:
    """Equal to `activation.silu_mul`. block: columns one program takes."""
    rows, width = gate_up_TF.shape[0], gate_up_TF.shape[1] // 2
    out_TG = torch.empty((rows, width), dtype=gate_up_TF.dtype, device=gate_up_TF.device)
    if rows:
        _silu_mul_kernel[(rows * triton.cdiv(width, block),)](
            gate_up_TF, out_TG, gate_up_TF.stride(0), width, block, num_warps=num_warps
        )
    return out_TG

"""RMSNorm, alone and joined with the residual addition, as Triton kernels: one program a row.

Equal to norm.py. Imported only when Triton is chosen. Rows must be contiguous along D.

Shapes: T tokens, D width.
"""
# mypy: disable-error-code="import-untyped,import-not-found,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait


@triton.jit
def rms_norm_kernel(
    x_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    y_ptr: tl.tensor,
    x_stride: tl.tensor,
    eps: tl.tensor,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    DEPENDENT: tl.constexpr,
) -> None:
    """DEPENDENT: launched while the kernel before it ends; the weight waits for nothing."""
    row = tl.program_id(0).to(tl.int64)
    d_D = tl.arange(0, BLOCK)
    inside_D = d_D < WIDTH
    weight_D = tl.load(weight_ptr + d_D, mask=inside_D, other=0.0).to(tl.float32)
    if DEPENDENT:
        gdc_wait()
        gdc_launch_dependents()
    x_D = tl.load(x_ptr + row * x_stride + d_D, mask=inside_D, other=0.0).to(tl.float32)
    y_D = x_D * tl.rsqrt(tl.sum(x_D * x_D) / WIDTH + eps) * weight_D
    tl.store(y_ptr + row * WIDTH + d_D, y_D, mask=inside_D)


@triton.jit
def _add_rms_norm_kernel(
    x_ptr: tl.tensor,
    residual_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    y_ptr: tl.tensor,
    x_stride: tl.tensor,
    residual_stride: tl.tensor,
    eps: tl.tensor,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    d_D = tl.arange(0, BLOCK)
    inside_D = d_D < WIDTH
    residual_ptrs = residual_ptr + row * residual_stride + d_D
    x_D = tl.load(x_ptr + row * x_stride + d_D, mask=inside_D, other=0.0).to(tl.float32)
    x_D += tl.load(residual_ptrs, mask=inside_D, other=0.0).to(tl.float32)
    weight_D = tl.load(weight_ptr + d_D, mask=inside_D, other=0.0).to(tl.float32)
    stored_D = x_D.to(residual_ptr.dtype.element_ty)
    tl.store(residual_ptrs, stored_D, mask=inside_D)
    x_D = stored_D.to(tl.float32)
    y_D = x_D * tl.rsqrt(tl.sum(x_D * x_D) / WIDTH + eps) * weight_D
    tl.store(y_ptr + row * WIDTH + d_D, y_D, mask=inside_D)


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float, num_warps: int = 0) -> Tensor:
    """Equal to `norm.rms_norm`. num_warps: 0 for the measured choice."""
    rows, width = x_TD.shape
    y_TD = torch.empty((rows, width), dtype=x_TD.dtype, device=x_TD.device)
    if rows:
        rms_norm_kernel[(rows,)](
            x_TD,
            weight_D,
            y_TD,
            x_TD.stride(0),
            eps,
            width,
            row_block(width),
            False,
            num_warps=num_warps or row_warps(width),
        )
    return y_TD


def add_rms_norm(
    x_TD: Tensor, residual_TD: Tensor, weight_D: Tensor, eps: float, num_warps: int = 0
) -> tuple[Tensor, Tensor]:
    """Equal to `norm.add_rms_norm`: `residual_TD` is updated IN PLACE and returned."""
    rows, width = x_TD.shape
    y_TD = torch.empty((rows, width), dtype=x_TD.dtype, device=x_TD.device)
    if rows:
        _add_rms_norm_kernel[(rows,)](
            x_TD,
            residual_TD,
            weight_D,
            y_TD,
            x_TD.stride(0),
            residual_TD.stride(0),
            eps,
            width,
            row_block(width),
            num_warps=num_warps or row_warps(width),
        )
    return y_TD, residual_TD


def row_block(width: int) -> int:
    """Elements of the power of two that holds a row."""
    return max(1 << (width - 1).bit_length(), 128)


def row_warps(width: int) -> int:
    """Warps of a program that norms one row."""
    return 2 if width <= 3072 else 8

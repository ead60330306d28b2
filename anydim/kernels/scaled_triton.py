"""8-bit rows with a scale each as Triton kernels: made alone, behind a norm or behind the gated activation; multiplied.

Equal to scaled.py. Imported only when Triton is chosen. One program makes one row, which it reads once. float8 products
are torch's own (`torch._scaled_mm`, scales a row and a column); int8 ones are the kernel below, since torch's gives
int32 sums back, four bytes each, before anything is scaled.

Shapes: R rows, T tokens, D width, C columns, F fused gate and up columns, G = F/2, I channels in, O channels out;
M tokens, N channels and K channels summed over of a product's program.
"""
# mypy: disable-error-code="import-untyped,import-not-found,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from anydim.kernels import scaled
from anydim.kernels.launch import early, shared_memory
from anydim.kernels.norm_triton import row_block, row_warps
from anydim.kernels.scaled import LIMITS, Scaled


@triton.jit
def _store_scaled(
    x_C: tl.tensor,
    inside_C: tl.tensor,
    row: tl.tensor,
    values_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    LIMIT: tl.constexpr,
) -> None:
    """Round a row to 8 bits. Maxima forget NaN, so that the scale takes it from a sum."""
    scale = tl.maximum(tl.max(tl.abs(x_C)) / LIMIT, 1e-30) + tl.sum(0.0 * x_C)
    level_C = x_C * (1.0 / scale)
    if values_ptr.dtype.element_ty == tl.int8:
        level_C = (level_C + 12582912.0) - 12582912.0  # 1.5 * 2**23: to the nearest, halves to even, as torch does
    tl.store(values_ptr + row * WIDTH + tl.arange(0, BLOCK), level_C.to(values_ptr.dtype.element_ty), mask=inside_C)
    tl.store(scale_ptr + row, scale)


@triton.jit
def _quantize_kernel(
    x_ptr: tl.tensor,
    values_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    stride: tl.tensor,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    LIMIT: tl.constexpr,
    DEPENDENT: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    c_C = tl.arange(0, BLOCK)
    inside_C = c_C < WIDTH
    if DEPENDENT:
        gdc_wait()
        gdc_launch_dependents()
    x_C = tl.load(x_ptr + row * stride + c_C, mask=inside_C, other=0.0).to(tl.float32)
    _store_scaled(x_C, inside_C, row, values_ptr, scale_ptr, WIDTH, BLOCK, LIMIT)


@triton.jit
def _norm_kernel(
    x_ptr: tl.tensor,
    residual_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    values_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    x_stride: tl.tensor,
    residual_stride: tl.tensor,
    eps: tl.tensor,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    LIMIT: tl.constexpr,
    DEPENDENT: tl.constexpr,
) -> None:
    """residual_ptr: the stream that x is added to, or None."""
    row = tl.program_id(0).to(tl.int64)
    d_D = tl.arange(0, BLOCK)
    inside_D = d_D < WIDTH
    weight_D = tl.load(weight_ptr + d_D, mask=inside_D, other=0.0).to(tl.float32)
    if DEPENDENT:
        gdc_wait()
        gdc_launch_dependents()
    x_D = tl.load(x_ptr + row * x_stride + d_D, mask=inside_D, other=0.0).to(tl.float32)
    if residual_ptr is not None:
        residual_ptrs = residual_ptr + row * residual_stride + d_D
        stored_D = (x_D + tl.load(residual_ptrs, mask=inside_D, other=0.0).to(tl.float32)).to(
            residual_ptr.dtype.element_ty
        )
        tl.store(residual_ptrs, stored_D, mask=inside_D)
        x_D = stored_D.to(tl.float32)
    y_D = x_D * tl.rsqrt(tl.sum(x_D * x_D) / WIDTH + eps) * weight_D
    _store_scaled(y_D, inside_D, row, values_ptr, scale_ptr, WIDTH, BLOCK, LIMIT)


@triton.jit
def _silu_mul_kernel(
    gate_up_ptr: tl.tensor,
    values_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    stride: tl.tensor,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    LIMIT: tl.constexpr,
    DEPENDENT: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    g_G = tl.arange(0, BLOCK)
    inside_G = g_G < WIDTH
    if DEPENDENT:
        gdc_wait()
        gdc_launch_dependents()
    gate_ptrs = gate_up_ptr + row * stride + g_G
    gate_G = tl.load(gate_ptrs, mask=inside_G, other=0.0).to(tl.float32)
    up_G = tl.load(gate_ptrs + WIDTH, mask=inside_G, other=0.0).to(tl.float32)
    _store_scaled(gate_G * tl.sigmoid(gate_G) * up_G, inside_G, row, values_ptr, scale_ptr, WIDTH, BLOCK, LIMIT)


@triton.jit(do_not_specialize=["n_tokens"])
def _int8_kernel(
    x_ptr: tl.tensor,
    x_scale_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    weight_scale_ptr: tl.tensor,
    bias_ptr: tl.tensor,
    out_ptr: tl.tensor,
    n_tokens: tl.tensor,
    N: tl.constexpr,
    K: tl.constexpr,
    TOKENS: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BAND: tl.constexpr,
) -> None:
    """One tile of the product. Tiles go in bands of BAND tokens' tiles, so that neighbours share weights in L2."""
    tiles_m, tiles_n = tl.cdiv(n_tokens, TOKENS), tl.cdiv(N, CHANNELS)
    pid = tl.program_id(0)
    band = pid // (BAND * tiles_n)
    height = tl.minimum(tiles_m - band * BAND, BAND)
    within = pid % (BAND * tiles_n)
    token_M = (band * BAND + within % height) * TOKENS + tl.arange(0, TOKENS)
    channel_N = (within // height) * CHANNELS + tl.arange(0, CHANNELS)
    k_K = tl.arange(0, BLOCK_K)
    inside_M, inside_N = token_M < n_tokens, channel_N < N
    x_ptrs = x_ptr + token_M.to(tl.int64)[:, None] * K + k_K[None, :]
    weight_ptrs = weight_ptr + channel_N.to(tl.int64)[None, :] * K + k_K[:, None]
    sum_MN = tl.zeros([TOKENS, CHANNELS], dtype=tl.int32)
    for start in tl.range(0, K, BLOCK_K):
        inside_K = start + k_K < K
        x_MK = tl.load(x_ptrs, mask=inside_M[:, None] & inside_K[None, :], other=0)
        weight_KN = tl.load(weight_ptrs, mask=inside_N[None, :] & inside_K[:, None], other=0)
        sum_MN = tl.dot(x_MK, weight_KN, sum_MN, out_dtype=tl.int32)
        x_ptrs += BLOCK_K
        weight_ptrs += BLOCK_K
    x_scale_M = tl.load(x_scale_ptr + token_M, mask=inside_M, other=0.0)
    weight_scale_N = tl.load(weight_scale_ptr + channel_N, mask=inside_N, other=0.0)
    out_MN = sum_MN.to(tl.float32) * x_scale_M[:, None] * weight_scale_N[None, :]
    if bias_ptr is not None:
        out_MN += tl.load(bias_ptr + channel_N, mask=inside_N, other=0.0).to(tl.float32)[None, :]
    out_ptrs = out_ptr + token_M.to(tl.int64)[:, None] * N + channel_N[None, :]
    tl.store(out_ptrs, out_MN, mask=inside_M[:, None] & inside_N[None, :])


def quantize_rows(x_RC: Tensor, dtype: torch.dtype) -> Scaled:
    """Equal to `scaled.quantize_rows`; columns must be contiguous."""
    out, args = _scaled(x_RC, x_RC.shape[1], dtype)
    if len(x_RC):
        _quantize_kernel[(len(x_RC),)](x_RC, *args, num_warps=_warps(x_RC.shape[1]), **early(x_RC.device))
    return out


def rms_norm_scaled(x_TD: Tensor, weight_D: Tensor, eps: float, dtype: torch.dtype) -> Scaled:
    """Equal to `scaled.rms_norm_scaled`."""
    return _norm(x_TD, None, weight_D, eps, dtype)


def add_rms_norm_scaled(
    x_TD: Tensor, residual_TD: Tensor, weight_D: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Scaled, Tensor]:
    """Equal to `scaled.add_rms_norm_scaled`, IN PLACE on residual_TD."""
    return _norm(x_TD, residual_TD, weight_D, eps, dtype), residual_TD


def silu_mul_scaled(gate_up_TF: Tensor, dtype: torch.dtype) -> Scaled:
    """Equal to `scaled.silu_mul_scaled`."""
    width = gate_up_TF.shape[1] // 2
    out, args = _scaled(gate_up_TF, width, dtype)
    if len(gate_up_TF):
        _silu_mul_kernel[(len(gate_up_TF),)](gate_up_TF, *args, num_warps=_warps(width), **early(gate_up_TF.device))
    return out


def scaled_mm(x: Scaled, weight: Scaled, bias_O: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Equal to `scaled.scaled_mm`; float8 sums in the card's fast accumulation."""
    if x.values_RC.dtype is torch.int8:
        return _int8_mm(x, weight, bias_O, dtype)
    if x.shape[1] % 16 or weight.shape[0] % 16:  # sizes that no real model has
        return scaled.scaled_mm(x, weight, bias_O, dtype)
    out_TO = torch._scaled_mm(
        x.values_RC,
        weight.values_RC.t(),
        scale_a=x.scale_R[:, None],
        scale_b=weight.scale_R[None, :],
        out_dtype=dtype,
        use_fast_accum=True,
    )
    return out_TO if bias_O is None else out_TO.add_(bias_O)


def _norm(x_TD: Tensor, residual_TD: Tensor | None, weight_D: Tensor, eps: float, dtype: torch.dtype) -> Scaled:
    rows, width = x_TD.shape
    out, (values_TD, scale_T, stride, *constants) = _scaled(x_TD, width, dtype)
    residual_stride = 0 if residual_TD is None else residual_TD.stride(0)
    if rows:
        _norm_kernel[(rows,)](
            x_TD, residual_TD, weight_D, values_TD, scale_T, stride, residual_stride, eps, *constants,
            num_warps=row_warps(width), **early(x_TD.device),
        )  # fmt: skip
    return out


def _scaled(x_TC: Tensor, width: int, dtype: torch.dtype) -> tuple[Scaled, list[Tensor | int | float]]:
    """An empty result of ``width`` columns, and what every kernel takes behind its input."""
    values_TC = x_TC.new_empty((len(x_TC), width), dtype=dtype)
    scale_T = x_TC.new_empty(len(x_TC), dtype=torch.float32)
    return Scaled(values_TC, scale_T), [values_TC, scale_T, x_TC.stride(0), width, row_block(width), LIMITS[dtype]]


def _int8_mm(x: Scaled, weight: Scaled, bias_O: Tensor | None, dtype: torch.dtype) -> Tensor:
    (tokens, width), channels = x.shape, weight.shape[0]
    out_TO = x.values_RC.new_empty((tokens, channels), dtype=dtype)
    roomy = shared_memory(out_TO.device) >= 160 << 10
    rows, columns, warps, stages = (64, 128, 4, 4) if tokens <= 128 else (128, 256, 8, 4) if roomy else (128, 128, 8, 3)
    if tokens:
        _int8_kernel[(triton.cdiv(tokens, rows) * triton.cdiv(channels, columns),)](
            x.values_RC, x.scale_R, weight.values_RC, weight.scale_R, bias_O, out_TO, tokens, channels, width,
            rows, columns, 128, 8, num_warps=warps, num_stages=stages,
        )  # fmt: skip
    return out_TO


def _warps(width: int) -> int:
    return 4 if width <= 3072 else 8

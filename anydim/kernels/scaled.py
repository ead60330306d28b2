"""Matrices of 8-bit rows with one scale each, and what makes and multiplies them, in plain torch.

A product in 8 bits takes its weights with a scale an output channel and its tokens with a scale a token, both found by
the row's largest magnitude. What stands before a product can give its rows in 8 bits at once. Any device; the Triton
twins are in scaled_triton.py. It knows no models and no loading.

Sources: Micikevicius et al. 2022, arXiv 2209.05433 (the e4m3 format); Dettmers et al. 2022, arXiv 2208.07339 (scales a
row and a column).

Shapes: R rows, C columns, T tokens, D hidden width, I channels in, O channels out, F fused gate and up
columns, G = F/2.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

from anydim.kernels import activation, norm

LIMITS: Final = MappingProxyType({torch.float8_e4m3fn: 448.0, torch.int8: 127.0})
"""The largest magnitude that rows are scaled to, by the type of their values."""

_LEAST_SCALE: Final = 1e-30  # a row of zeros must not divide by zero


@dataclass(frozen=True, slots=True)
class Scaled:
    """A matrix of 8-bit values: row r stands for values_RC[r] * scale_R[r].

    Attributes:
        values_RC: float8_e4m3fn or int8.
        scale_R: float32.
    """

    values_RC: Tensor
    scale_R: Tensor

    def __getitem__(self, rows: Any) -> Scaled:
        """Some rows, by slice or by a tensor of indices."""
        return Scaled(self.values_RC[rows], self.scale_R[rows])

    @property
    def shape(self) -> torch.Size:
        """Rows and columns."""
        return self.values_RC.shape

    def dequantize(self) -> Tensor:
        """The matrix that is stood for: float32 (R, C)."""
        return self.values_RC.float().mul_(self.scale_R[:, None])


def quantize_rows(x_RC: Tensor, dtype: torch.dtype) -> Scaled:
    """Round each row to 8 bits, its largest magnitude to the largest value of the type.

    A row that holds NaN or infinity gives such values again when it is multiplied, so that it is found at the end.
    """
    limit = LIMITS[dtype]
    x32_RC = x_RC.float()
    scale_R = (x32_RC.abs().amax(dim=1) / limit).clamp_min(_LEAST_SCALE)
    levels_RC = x32_RC / scale_R[:, None]
    if dtype is torch.int8:
        levels_RC = levels_RC.round().nan_to_num(0.0, posinf=127.0, neginf=-127.0)
    return Scaled(levels_RC.to(dtype), scale_R)


def scaled_mm(x: Scaled, weight: Scaled, bias_O: Tensor | None, dtype: torch.dtype) -> Tensor:
    """x @ weight.T + bias, summed exactly in int8 and in float32 in float8: (T, O) in ``dtype``."""
    if x.values_RC.dtype is torch.int8 and _sums_exactly(x.values_RC.device):
        sums_TO = torch._int_mm(x.values_RC, weight.values_RC.t()).float()
    else:
        exact = torch.float64 if x.values_RC.dtype is torch.int8 else torch.float32
        sums_TO = (x.values_RC.to(exact) @ weight.values_RC.to(exact).t()).float()
    out_TO = sums_TO * x.scale_R[:, None] * weight.scale_R
    return (out_TO if bias_O is None else out_TO + bias_O.float()).to(dtype)


def _sums_exactly(device: torch.device) -> bool:
    """Whether torch's int8 product is right: on CPUs without VNNI oneDNN's sums of pairs saturate at 16 bits."""
    return device.type == "cpu" and (torch.cpu._is_vnni_supported() or torch.cpu._is_amx_tile_supported())


def rms_norm_scaled(x_TD: Tensor, weight_D: Tensor, eps: float, dtype: torch.dtype) -> Scaled:
    """`norm.rms_norm`, rounded once: to 8 bits."""
    return quantize_rows(norm.rms_norm(x_TD.float(), weight_D, eps), dtype)


def add_rms_norm_scaled(
    x_TD: Tensor, residual_TD: Tensor, weight_D: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Scaled, Tensor]:
    """`norm.add_rms_norm` with the norm in 8 bits; ``residual_TD`` is updated IN PLACE and returned."""
    residual_TD.copy_(residual_TD.float() + x_TD.float())
    return rms_norm_scaled(residual_TD, weight_D, eps, dtype), residual_TD


def silu_mul_scaled(gate_up_TF: Tensor, dtype: torch.dtype) -> Scaled:
    """`activation.silu_mul`, rounded once: to 8 bits."""
    return quantize_rows(activation.silu_mul(gate_up_TF.float()), dtype)

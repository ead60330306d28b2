"""Kernels: the few operations of a packed forward that are not matrix products, in plain torch and in Triton.

One family a file: `norm.py` is the plain function, `norm_triton.py` the kernel that must equal it, and so on.
A model takes an `Ops` and never asks which it has. Importing this needs torch, not Triton. Knows no models.

`plan.py` lays out a batch for the attention functions.

Shapes: T tokens, C columns of the fused qkv block, D hidden width, I channels in, O channels out, F fused gate and up
columns, E width of a head, P positions; the others are explained in each family's file.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final, Protocol

import torch
from torch import Tensor

from anydim.errors import ConfigError
from anydim.kernels import activation, attention, attention_flash, norm, rope, scaled
from anydim.kernels.attention import bind_plan, place_plan
from anydim.kernels.plan import AttentionPlan, TileShape, make_plan, tile_bound, tile_shape, typical_length
from anydim.kernels.rope import rope_tables
from anydim.kernels.scaled import Scaled

if TYPE_CHECKING:
    from anydim.kernels.fused_triton import FusedKernels

__all__ = [
    "FEW_TOKENS",
    "LEAST_HEAD_DIM",
    "OP_NAMES",
    "AttentionPlan",
    "Ops",
    "Scaled",
    "TileShape",
    "bind_plan",
    "flash_ops",
    "make_plan",
    "place_plan",
    "plain_ops",
    "rope_tables",
    "select_ops",
    "tile_bound",
    "tile_shape",
    "triton_ops",
    "typical_length",
]

FEW_TOKENS: Final = 64
"""Most tokens of a forward that runs the fused steps of a layer."""

LEAST_HEAD_DIM: Final = 32
"""Least values of a head that they take, which multiply half a head at a time: a tensor core takes 16."""

Attend = Callable[[Tensor, AttentionPlan, int, int, float, bool], Tensor]
AttendRows = Callable[[Tensor, Tensor, AttentionPlan, int, int, float], Tensor]
QkNormRope = Callable[[Tensor, Tensor, Tensor | None, Tensor | None, Tensor, Tensor, int, int, float], None]


class RmsNormScaled(Protocol):
    """As `scaled.rms_norm_scaled`."""

    def __call__(self, x_TD: Tensor, weight_D: Tensor, eps: float, dtype: torch.dtype) -> Scaled: ...


class AddRmsNormScaled(Protocol):
    """As `scaled.add_rms_norm_scaled`."""

    def __call__(
        self, x_TD: Tensor, residual_TD: Tensor, weight_D: Tensor, eps: float, dtype: torch.dtype
    ) -> tuple[Scaled, Tensor]: ...


class SiluMulScaled(Protocol):
    """As `scaled.silu_mul_scaled`."""

    def __call__(self, gate_up_TF: Tensor, dtype: torch.dtype) -> Scaled: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ops:
    """The operations of a forward; each behaves as the plain function of the same name in this package.

    ``attend_long`` is ``attend`` for plans with a dense part, None where there shall be none.
    ``fused`` are the steps of a forward of at most FEW_TOKENS tokens (fused.py), None where the others do that too.
    """

    rms_norm: Callable[[Tensor, Tensor, float], Tensor]
    add_rms_norm: Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]
    qk_norm_rope_: QkNormRope
    silu_mul: Callable[[Tensor], Tensor]
    attend: Attend
    attend_rows: AttendRows
    quantize_rows: Callable[[Tensor, torch.dtype], Scaled]
    scaled_mm: Callable[[Scaled, Scaled, Tensor | None, torch.dtype], Tensor]
    rms_norm_scaled: RmsNormScaled
    add_rms_norm_scaled: AddRmsNormScaled
    silu_mul_scaled: SiluMulScaled
    attend_long: Attend | None = None
    fused: FusedKernels | None = None

    @property
    def takes_prefixes(self) -> bool:
        """Whether attention reads shared prefixes: torch's own FlashAttention cannot."""
        return self.attend is not attention_flash.attend and self.attend_rows is not attention_flash.attend_rows


OP_NAMES: Final = frozenset(field.name for field in fields(Ops))


def plain_ops() -> Ops:
    """Plain torch throughout: any device, any dtype."""
    return Ops(
        rms_norm=norm.rms_norm,
        add_rms_norm=norm.add_rms_norm,
        qk_norm_rope_=rope.qk_norm_rope_,
        silu_mul=activation.silu_mul,
        attend=attention.attend,
        attend_rows=attention.attend_rows,
        quantize_rows=scaled.quantize_rows,
        scaled_mm=scaled.scaled_mm,
        rms_norm_scaled=scaled.rms_norm_scaled,
        add_rms_norm_scaled=scaled.add_rms_norm_scaled,
        silu_mul_scaled=scaled.silu_mul_scaled,
    )


def triton_ops(plain: frozenset[str] = frozenset()) -> Ops:
    """Triton kernels, except for the names in `plain` (to measure what a kernel is worth).

    Raises ImportError without Triton, ConfigError for a name that is no operation.
    """
    from anydim.kernels import activation_triton, attention_triton, norm_triton, rope_triton, scaled_triton

    kernels = Ops(
        rms_norm=norm_triton.rms_norm,
        add_rms_norm=norm_triton.add_rms_norm,
        qk_norm_rope_=rope_triton.qk_norm_rope_,
        silu_mul=activation_triton.silu_mul,
        attend=attention_triton.attend,
        attend_rows=attention_triton.attend_rows,
        quantize_rows=scaled_triton.quantize_rows,
        scaled_mm=scaled_triton.scaled_mm,
        rms_norm_scaled=scaled_triton.rms_norm_scaled,
        add_rms_norm_scaled=scaled_triton.add_rms_norm_scaled,
        silu_mul_scaled=scaled_triton.silu_mul_scaled,
    )
    return _with(kernels, plain_ops(), plain)


def flash_ops() -> Ops:
    """Plain torch with the FlashAttention-2 that ships with it: CUDA and 16-bit only."""
    return replace(plain_ops(), attend=attention_flash.attend, attend_rows=attention_flash.attend_rows)


def select_ops(device: torch.device, dtype: torch.dtype, plain: frozenset[str] = frozenset()) -> Ops:
    """The fastest operations this device and dtype can run, with the names in `plain` taken from torch.

    CUDA with bfloat16 or float32: Triton where it can be imported. What torch itself has to do on CUDA in 16 bits
    uses its FlashAttention-2. Everything else: plain torch.
    """
    sixteen = dtype in (torch.bfloat16, torch.float16)
    fallback = flash_ops() if device.type == "cuda" and sixteen else plain_ops()
    fits = device.type == "cuda" and dtype in (torch.bfloat16, torch.float32)
    if fits and importlib.util.find_spec("triton") is not None:
        return _with(_for_bfloat16(triton_ops(), device, dtype), fallback, plain)
    return _with(fallback, fallback, plain)


def _for_bfloat16(ops: Ops, device: torch.device, dtype: torch.dtype) -> Ops:
    """With the fused kernels, whose blocks fit into shared memory in 16 bits, and with cuDNN's for long texts."""
    if dtype is not torch.bfloat16:
        return ops
    from anydim.kernels import attention_long
    from anydim.kernels.fused_triton import FusedKernels

    long = attention_long.attend if attention_long.works(device) else None
    return replace(ops, attend_long=long, fused=FusedKernels(device))


def _with(ops: Ops, other: Ops, names: frozenset[str]) -> Ops:
    if unknown := sorted(names - OP_NAMES):
        raise ConfigError(f"no such operation: {', '.join(unknown)}; there are {', '.join(sorted(OP_NAMES))}")
    if "attend" in names:
        names |= {"attend_long"}
    return replace(ops, **{name: getattr(other, name) for name in names})

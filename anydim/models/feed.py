"""Feed: the steps of a layer that make and multiply the operands of products, in the precision of the weights.

A forward calls them and does not know whether an operand is a plain matrix or 8-bit rows with scales. ``quantizing``
puts a model into 8 bits as it is loaded, from outside: it replaces the weights of its products and these steps. Weights
have a scale an output channel, tokens one a token; everything between products stays in the model's own precision.

It knows no architecture. Shapes: T tokens, D hidden width, F gate and up columns, G = F/2, I channels in, O out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from anydim.errors import ConfigError
from anydim.kernels import Ops, Scaled
from anydim.models.linear import linear, linear_gelu

Operand = Tensor | Scaled

EIGHT_BITS: Final = MappingProxyType({"fp8": torch.float8_e4m3fn, "int8": torch.int8})
"""The type of an operand's values behind each ``--quantization``."""


class Product(NamedTuple):
    """One product of a forward.

    Attributes:
        width: the columns I that it takes.
        run: rows (T, I) to (T, O).
    """

    width: int
    run: Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """The steps.

    Attributes:
        rms_norm: (x_TD, weight_D, eps) to an operand.
        add_rms_norm: (x_TD, residual_TD, weight_D, eps) to an operand and the updated residual stream.
        silu_mul: gate_up_TF to an operand (T, G).
        product: (x, weight, bias_O or None) to x @ weight.T + bias, (T, O).
        product_gelu: the exact GELU of that.
        dtype: the type of 8-bit operands, or None where they are plain.
        around: what was put around these steps from outside, and has to be put around others that take their place.
    """

    rms_norm: Callable[[Tensor, Tensor, float], Operand]
    add_rms_norm: Callable[[Tensor, Tensor, Tensor, float], tuple[Operand, Tensor]]
    silu_mul: Callable[[Tensor], Operand]
    product: Callable[[Operand, Operand, Tensor | None], Tensor]
    product_gelu: Callable[[Operand, Operand, Tensor | None], Tensor]
    dtype: torch.dtype | None = None
    around: Callable[[Feed], Feed] | None = None

    def products(self, weights: Iterable[tuple[Operand, Tensor | None]]) -> list[Product]:
        """The product by each weight, with its bias or None."""
        return [
            Product(weight.shape[1], partial(self._times, weight=weight, bias_O=bias_O)) for weight, bias_O in weights
        ]

    def _times(self, x_TI: Tensor, weight: Operand, bias_O: Tensor | None) -> Tensor:
        return self.product(x_TI, weight, bias_O)


class Quantizable(Protocol):
    """A model whose products can be put into 8 bits."""

    feed: Feed

    def product_weights(self) -> Iterator[tuple[nn.Module, str]]:
        """The module and the name of the weight of each product."""
        ...

    def get_submodule(self, target: str) -> nn.Module:
        """As torch.nn.Module does."""
        ...


def plain_feed(ops: Ops) -> Feed:
    """Operands in the model's own precision."""
    return Feed(
        rms_norm=ops.rms_norm,
        add_rms_norm=ops.add_rms_norm,
        silu_mul=ops.silu_mul,
        product=linear,  # type: ignore[arg-type]  # its operands are plain
        product_gelu=linear_gelu,  # type: ignore[arg-type]
    )


def scaled_feed(ops: Ops, eight: torch.dtype, dtype: torch.dtype) -> Feed:
    """Operands in 8 bits; products come out in ``dtype``."""

    def product(x: Operand, weight: Operand, bias_O: Tensor | None) -> Tensor:
        assert isinstance(weight, Scaled), "the model is quantised"
        rows = x if isinstance(x, Scaled) else ops.quantize_rows(x, eight)
        return ops.scaled_mm(rows, weight, bias_O, dtype)

    return Feed(
        rms_norm=partial(ops.rms_norm_scaled, dtype=eight),
        add_rms_norm=partial(ops.add_rms_norm_scaled, dtype=eight),
        silu_mul=partial(ops.silu_mul_scaled, dtype=eight),
        product=product,
        product_gelu=lambda x, weight, bias_O: functional.gelu(product(x, weight, bias_O)),
        dtype=eight,
    )


def dequantizing_feed(ops: Ops) -> Feed:
    """Plain operands; 8-bit weights are multiplied as the float32 matrices that they stand for, made for the moment."""

    def product(x: Operand, weight: Operand, bias_O: Tensor | None) -> Tensor:
        assert isinstance(x, Tensor), "nothing before a product gives 8 bits here"
        return linear(x, weight.dequantize() if isinstance(weight, Scaled) else weight, bias_O)

    return replace(
        plain_feed(ops), product=product, product_gelu=lambda x, w, bias_O: functional.gelu(product(x, w, bias_O))
    )


def check_quantization(kind: str, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse what the device cannot multiply.

    Raises:
        ConfigError: naming the flag and what works instead.
    """
    if kind == "none" or device.type == "cpu":
        return
    if device.type != "cuda":
        raise ConfigError(f"--quantization {kind} runs on CUDA devices and CPUs, not on {device.type}")
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        raise ConfigError(f"--quantization {kind} needs a GPU of compute capability 8.0 or later (Ampere)")
    if dtype is torch.float16:
        raise ConfigError(f"--quantization {kind} runs around bfloat16 or float32; use --dtype bfloat16")
    if kind == "fp8" and capability < (8, 9):
        raise ConfigError("--quantization fp8 needs a GPU with fp8 products (Ada, Hopper or later); int8 works here")
    if kind == "fp8" and dtype is not torch.bfloat16:
        raise ConfigError("--quantization fp8 needs --dtype bfloat16 on a GPU: its products come out in that")


def quantizing(model: Quantizable, kind: str, ops: Ops, dtype: torch.dtype) -> Callable[[Sequence[str]], None]:
    """Replace the steps around the products by those in 8 bits; their weights follow as they come.

    Returns:
        What replaces those of the named parameters that are weights of products.
    """
    eight = EIGHT_BITS[kind]
    products = {(id(module), name) for module, name in model.product_weights()}

    @torch.no_grad()
    def replace(names: Sequence[str]) -> None:
        for path, _, name in (name.rpartition(".") for name in names):
            module = model.get_submodule(path)
            if (id(module), name) in products:
                scaled = ops.quantize_rows(getattr(module, name).data, eight)
                delattr(module, name)
                setattr(module, name, scaled)

    model.feed = scaled_feed(ops, eight, dtype)
    return replace

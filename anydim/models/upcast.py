"""Upcast: a model's forward in float32 with the weights that it has, one weight at a time.

For inputs whose states leave the range of float16 or bfloat16. Each operation gets its 16-bit arguments as float32
copies, which are freed when it is done: beside the activations of one text this takes no more memory than the largest
weight in float32. It knows torch's operations; it knows no architecture. Kernels of our own are left out, since they
are no operations of torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from anydim.kernels import plain_ops
from anydim.models.feed import dequantizing_feed
from anydim.models.packed import Model

_HALVES: Final = (torch.float16, torch.bfloat16)


@contextlib.contextmanager
def in_float32(model: Model) -> Iterator[None]:
    """Run what is called inside in float32; not for several threads at once."""
    plain = plain_ops()
    feed = dequantizing_feed(plain)
    around = getattr(getattr(model, "feed", None), "around", None)
    changes = {"_ops": plain, "feed": around(feed) if around else feed}
    before = {name: getattr(model, name) for name in changes if hasattr(model, name)}
    try:
        for name in before:
            setattr(model, name, changes[name])
        with _Upcasting():
            yield
    finally:
        for name, value in before.items():
            setattr(model, name, value)


class _Upcasting(TorchFunctionMode):
    """Hands float32 copies of 16-bit tensors to every operation."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__name__", "") in ("__get__", "__set__", "dim", "size", "is_contiguous", "stride"):
            return func(*args, **(kwargs or {}))
        if func is functional.embedding:  # rows first: the table is the largest weight by far
            return _upcast(func(*args, **(kwargs or {})))
        return func(*map(_upcast, args), **{name: _upcast(value) for name, value in (kwargs or {}).items()})


def _upcast(value: Any) -> Any:
    if isinstance(value, Tensor) and value.dtype in _HALVES:
        return value.to(torch.float32)
    if isinstance(value, list | tuple) and any(isinstance(part, Tensor) for part in value):
        return type(value)(_upcast(part) for part in value)
    return value

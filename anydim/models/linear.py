"""Linear: matrix products with the library that is fastest on the device. It knows no architecture.

On a CPU, torch sends float32 products to MKL, which is slow on processors that are not Intel's; oneDNN is not, and it
applies GELU while the product is still in the cache. It is reached through the operator that torch's own compiler
emits for this. Everything else goes through torch.nn.functional.

Legend: T rows, I channels in, O channels out.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

_ONEDNN_DTYPES: Final = (torch.float32, torch.bfloat16)
_HAS_ONEDNN: Final = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def linear(x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias: (T, O), as torch.nn.functional.linear."""
    if _fits_onednn(x_TI):
        out_TO: Tensor = torch.ops.mkldnn._linear_pointwise(x_TI, weight_OI, bias_O, "none", [], "")
        return out_TO
    return functional.linear(x_TI, weight_OI, bias_O)


def linear_gelu(x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None = None) -> Tensor:
    """GELU (the exact one) of ``linear``: (T, O)."""
    if _fits_onednn(x_TI):
        out_TO: Tensor = torch.ops.mkldnn._linear_pointwise(x_TI, weight_OI, bias_O, "gelu", [], "none")
        return out_TO
    return functional.gelu(functional.linear(x_TI, weight_OI, bias_O))


def _fits_onednn(x_TI: Tensor) -> bool:
    return _HAS_ONEDNN and x_TI.device.type == "cpu" and x_TI.dtype in _ONEDNN_DTYPES and x_TI.is_contiguous()

"""Output types: float32 rows -> the asked representation, vectorised over the batch.

It knows nothing of models or requests. Source of the binary kinds: sentence_transformers.quantization (a bit is 1
where a component is positive, most significant bit first; `binary` is `ubinary` less 128).

Legend: B texts, W widest dimension in the batch, P packed bytes a row (W / 8, rounded up).
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from anydim.types import OutputDtype

_LEAST_PEAK: Final = 1e-30  # a row of zeros must not divide by zero


def quantize(vectors_BW: Tensor, dtype: OutputDtype) -> tuple[Tensor, Tensor | None]:
    """Convert float32 rows, zero beyond each row's own dimension.

    Returns:
        The values, (B, W) or packed (B, P), and the scales float32 (B,) of int8 and uint8, else None:
        component = value * scale (uint8: (value - 128) * scale).
    """
    if dtype is OutputDtype.FLOAT32:
        return vectors_BW, None
    if dtype is OutputDtype.FLOAT16:
        return vectors_BW.half(), None
    if dtype in (OutputDtype.INT8, OutputDtype.UINT8):
        return _to_bytes(vectors_BW, dtype)
    packed_BP = _pack_bits(vectors_BW)
    if dtype is OutputDtype.BINARY:
        return (packed_BP.to(torch.int16) - 128).to(torch.int8), None
    return packed_BP, None


def _to_bytes(vectors_BW: Tensor, dtype: OutputDtype) -> tuple[Tensor, Tensor]:
    """round(127 v / max|v|) a row, so that the cosine survives without the scale."""
    peaks_B = vectors_BW.abs().amax(dim=1).clamp_min(_LEAST_PEAK)
    levels_BW = torch.round(vectors_BW * (127.0 / peaks_B)[:, None])
    scales_B = peaks_B / 127.0
    if dtype is OutputDtype.INT8:
        return levels_BW.to(torch.int8), scales_B
    return (levels_BW + 128.0).to(torch.uint8), scales_B


def _pack_bits(vectors_BW: Tensor) -> Tensor:
    rows, width = vectors_BW.shape
    bits = torch.nn.functional.pad(vectors_BW > 0, (0, -width % 8)).view(rows, -1, 8)
    weights = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], device=vectors_BW.device, dtype=torch.uint8)
    return (bits * weights).sum(dim=2, dtype=torch.uint8)

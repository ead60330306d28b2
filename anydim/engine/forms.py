"""Forms: from a text's raw vector to what each Item asks for. What the runner does on the device, done on the host.

A raw vector is the pooled state, with the fitted rotation, of full width, in float32 and of its own length. It knows
heads; it knows no models, no queue and no device.

Legend: B texts, D full width, W widest dimension asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from anydim.heads.dimension import finish
from anydim.heads.quantize import quantize
from anydim.types import Item, Output


def derive(items: Sequence[Item], raws: Sequence[Output]) -> list[Output]:
    """The Outputs of Items, from the raw Output of each one's text (values: float32 (D,), finite)."""
    outputs: dict[int, Output] = {}
    for dtype, model in dict.fromkeys((item.dtype, item.model) for item in items):
        places = [place for place, item in enumerate(items) if (item.dtype, item.model) == (dtype, model)]
        pooled_BD = torch.from_numpy(np.stack([raws[place].values for place in places]))
        dims_B = torch.tensor([items[place].dim for place in places], dtype=torch.int32)
        unit_B = torch.tensor([items[place].normalize for place in places], dtype=torch.int32)
        widest = int(dims_B.max())
        values, scales_B = quantize(finish(pooled_BD, dims_B, unit_B, widest)[:, :widest], dtype)
        rows = values.contiguous().numpy()
        for row, place in enumerate(places):
            scale = None if scales_B is None else float(scales_B[row])
            outputs[place] = Output(rows[row, : dtype.stored(items[place].dim)], scale)
    return [outputs[place] for place in range(len(items))]

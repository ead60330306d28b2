"""Scan: how long one exact search takes on this machine, form by form, with plain array code over stored vectors.

A part of the corpus is stored in the form and scanned for one query at a time; the time is scaled to the number of
vectors that was asked for. A database may be faster or slower; the ratios are those of the bytes and the arithmetic.

Legend: N stored vectors, d components.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from anydim.quality.forms import Form, Rows, in_form
from anydim.types import OutputDtype

STORED: Final = 20_000  # vectors that are scanned
_ROUNDS: Final = 5
_TOP: Final = 10


class Scan:
    """Times exact searches over rows of the user's own."""

    def __init__(self, rows: Rows, count: int) -> None:
        """Get ready.

        Args:
            rows: full rows; the first of them are scanned.
            count: vectors of the index that times are stated for.
        """
        self._rows = rows
        self._count = count

    def __call__(self, form: Form) -> float:
        """Milliseconds of one search: the median of a few."""
        kept_Nd = in_form(self._rows.for_form(form)[:STORED], form)
        search = _searcher(kept_Nd, form.dtype)
        search(0)
        times = []
        for place in range(_ROUNDS):
            began = time.perf_counter()
            search(place % len(kept_Nd))
            times.append(time.perf_counter() - began)
        return 1e3 * statistics.median(times) * self._count / len(kept_Nd)


def _searcher(kept_Nd: Tensor, dtype: OutputDtype) -> Callable[[int], Any]:
    """A search for the stored vector at a place."""
    most = min(_TOP, len(kept_Nd))
    if dtype in (OutputDtype.BINARY, OutputDtype.UBINARY):
        words = _words(np.packbits(kept_Nd.numpy() > 0, axis=1))
        return lambda place: np.argpartition(np.bitwise_count(words ^ words[place]).sum(axis=1), most - 1)[:most]
    if dtype in (OutputDtype.INT8, OutputDtype.UINT8):
        peaks = kept_Nd.abs().amax(dim=1, keepdim=True).clamp_min(1e-30)
        levels_Nd = torch.round(kept_Nd * (127 / peaks)).to(torch.int8)
        return lambda place: torch.topk(_int8_product(levels_Nd, levels_Nd[place]), most)
    stored_Nd = kept_Nd.half() if dtype is OutputDtype.FLOAT16 else kept_Nd
    return lambda place: torch.topk(stored_Nd @ stored_Nd[place], most)


def _words(packed: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Packed bits as words of 64, where rows are that long, so that fewer are counted."""
    return (
        packed.view(np.uint64)
        if packed.shape[1] % 8 == 0
        else packed.view(np.uint32)
        if packed.shape[1] % 4 == 0
        else packed
    )


def _int8_product(levels_Nd: Tensor, query_d: Tensor) -> Tensor:
    """Whole sums of products of bytes."""
    return torch._int_mm(levels_Nd, query_d[:, None].expand(-1, 1).contiguous())[:, 0]

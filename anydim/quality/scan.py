"""Scan: how long one exact search takes on a core of this machine, form by form, with plain code over stored vectors.

A part of the corpus is stored in the form and scanned for one query at a time; the time is scaled to the number of
vectors that was asked for. Of a small corpus vectors are stored several times, since a scan of a few hundred says more
about calls and threads than about a million. A database may be faster or slower; the ratios are those of the bytes and
the arithmetic.

Legend: N stored vectors, D full dimension, d components that are stored, W words of bits.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from anydim.heads.quantize import quantize
from anydim.quality.forms import Form
from anydim.quality.workers import one_thread_each
from anydim.types import OutputDtype

STORED: Final = 20_000  # vectors that are scanned
_ROUNDS: Final = 5
_TOP: Final = 10


class Scan:
    """Times exact searches over rows of the user's own."""

    def __init__(self, rows_ND: Tensor, count: int) -> None:
        """Get ready.

        Args:
            rows_ND: full rows; the first of them are scanned, again and again where they are few.
            count: vectors of the index that times are stated for.
        """
        stored = max(min(STORED, count), 1)
        self._rows_ND = rows_ND[torch.arange(stored) % len(rows_ND)].float()
        self._count = count
        self._stored: dict[OutputDtype, Tensor] = {}
        self._times: dict[tuple[int, OutputDtype], float] = {}

    def __call__(self, form: Form) -> float:
        """Milliseconds of one search: the median of a few. What the numbers are does not matter to it, so that a fitted
        form takes the time of the plain one, and a shorter one is cut from the full one.
        """
        key = (form.dim, form.dtype)
        if key not in self._times:
            self._times[key] = self._measured(form)
        return self._times[key]

    def _measured(self, form: Form) -> float:
        if form.dtype not in self._stored:
            self._stored[form.dtype] = _as_stored(self._rows_ND, form.dtype)
        kept_Nd = self._stored[form.dtype][:, : form.dtype.stored(form.dim)].contiguous()
        search = _searcher(kept_Nd, form.dtype)
        times = []
        with one_thread_each():  # bits are counted on one core, too; and threads that wait for each other tell nothing
            search(0)
            for place in range(_ROUNDS):
                began = time.perf_counter()
                search(place % len(kept_Nd))
                times.append(time.perf_counter() - began)
        return 1e3 * statistics.median(times) * self._count / len(kept_Nd)


def _as_stored(rows_ND: Tensor, dtype: OutputDtype) -> Tensor:
    """Full rows as they are kept; bits are packed."""
    if dtype in (OutputDtype.BINARY, OutputDtype.UBINARY):
        return quantize(rows_ND, OutputDtype.UBINARY)[0]
    return quantize(rows_ND, OutputDtype.INT8 if dtype is OutputDtype.UINT8 else dtype)[0]


def _searcher(kept_Nd: Tensor, dtype: OutputDtype) -> Callable[[int], Any]:
    """A search for the stored vector at a place."""
    most = min(_TOP, len(kept_Nd))
    if dtype in (OutputDtype.BINARY, OutputDtype.UBINARY):
        words_WN = np.ascontiguousarray(_words(kept_Nd.numpy()).T)  # a word of all vectors at a time is counted fastest
        return lambda place: np.argpartition(_distances(words_WN, words_WN[:, place]), most - 1)[:most]
    if dtype in (OutputDtype.INT8, OutputDtype.UINT8):
        return lambda place: torch.topk(_int8_product(kept_Nd, kept_Nd[place]), most)
    return lambda place: torch.topk(kept_Nd @ kept_Nd[place], most)


def _words(packed: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Packed bits as words of 64, where rows are that long, so that fewer are counted."""
    return (
        packed.view(np.uint64)
        if packed.shape[1] % 8 == 0
        else packed.view(np.uint32)
        if packed.shape[1] % 4 == 0
        else packed
    )


def _distances(words_WN: np.ndarray[Any, Any], query_W: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """How many bits differ."""
    differing: np.ndarray[Any, Any] = np.bitwise_count(words_WN ^ query_W[:, None]).sum(axis=0, dtype=np.uint16)
    return differing


def _int8_product(levels_Nd: Tensor, query_d: Tensor) -> Tensor:
    """Whole sums of products of bytes."""
    return torch._int_mm(levels_Nd, query_d[:, None].expand(-1, 1).contiguous())[:, 0]

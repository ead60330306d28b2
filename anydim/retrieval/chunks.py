"""Chunks: a text -> overlapping parts of a bounded number of tokens, cut between words where there are any.

It knows characters and where tokens stand in them; it knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Spans = NDArray[np.int32]

_SEGMENT: Final = 100_000  # characters tokenised at a time
_SEARCHED: Final = 4  # the last part of a chunk in which a word's beginning is looked for: 1 / 4


def chunk_text(text: str, spans_of: Callable[[str], Spans], size: int, overlap: int) -> Iterator[str]:
    """The parts of a text, in order; every token of it is in at least one.

    Args:
        text: of any length.
        spans_of: where the tokens of a text begin and end in it, in characters: int32 (T, 2).
        size: most tokens of a part.
        overlap: tokens that a part shares with the one before, at least; less than ``size``.
    """
    start = 0
    while start < len(text):
        segment = text[start : start + _SEGMENT]
        is_last = start + len(segment) == len(text)
        end = 0
        for first, last, closes in _windows(segment, spans_of(segment), size, overlap):
            if closes and not is_last and first > 0:
                end = first  # the rest of this window is in the next segment
                break
            part = segment[first:last].strip()
            if part:
                yield part
            end = last
        start += end or len(segment)


def _windows(text: str, spans: Spans, size: int, overlap: int) -> Iterator[tuple[int, int, bool]]:
    """Where each part begins and ends in characters, and whether it holds the last token."""
    begins: NDArray[Any] = spans[:, 0]
    first, count = 0, len(spans)
    while first < count:
        last = min(first + size, count)
        if last < count:
            last = _before_word(text, begins, first, last)
        end = len(text) if last == count else int(begins[last])
        yield int(begins[first]), end, last == count
        if last == count:
            return
        first = max(first + 1, last - overlap)


def _before_word(text: str, begins: NDArray[Any], first: int, last: int) -> int:
    """The last token up to ``last`` that begins a word; ``last`` itself where none does nearby."""
    for place in range(last, last - (last - first) // _SEARCHED, -1):
        at = int(begins[place])
        if text[at].isspace() or (at > 0 and text[at - 1].isspace()):
            return place
    return last

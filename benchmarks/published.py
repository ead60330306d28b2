"""What others reached: figures of vLLM, SGLang and transformers from earlier runs, to be read beside ours.

Not a script. They are not of the run that they are printed with: ratios are taken only within one run. Source: this
project's own measurements of these releases before it had an engine, with the cases of offline.py. The day is the one
on which the figures were taken over into this file.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

RECORDED: Final = "2026-11-22"
HARDWARE: Final = "one H100 80GB, torch 2.11.0+cu130"
NOTE: Final = "not of this run"

_THROUGHPUT: Final = ("2048x32", "1024x128", "512x512", "64x4096", "mixed")

# Shape -> (engine, thousand tokens a second for the cases above, p50 in ms of one text of 32 and of 512 tokens).
_FIGURES: Final = MappingProxyType(
    {
        "4b": (
            ("transformers, forward only", (48.4, 50.0, 49.5, 45.4, None), (70.0, 70.0)),
            ("vLLM 0.26.0, bf16", (46.9, 66.3, 71.9, 65.4, 68.0), (9.56, 11.7)),
            ("vLLM 0.26.0, fp8", (52.6, 84.1, 95.9, 86.2, 85.8), (12.8, 10.6)),
            ("SGLang 0.5.16, bf16", (46.8, 52.9, 71.0, 65.1, 68.9), (15.1, 15.6)),
        ),
        "0.6b": (("vLLM 0.26.0, bf16", (101.0, 202.0, 265.0, 268.0, 235.0), (8.7, 9.4)),),
    }
)


def reference_rows(shape: str) -> list[dict[str, Any]]:
    """One row an engine and case, marked as of another run; none for a shape that nobody was measured with."""
    rows: list[dict[str, Any]] = []
    for engine, rates, latencies in _FIGURES.get(shape, ()):
        mark = {"engine": engine, "reference": NOTE, "recorded": RECORDED, "hardware": HARDWARE}
        for case, rate in zip(_THROUGHPUT, rates, strict=True):
            if rate is not None:
                rows.append({**mark, "case": case, "tokens_per_s": 1e3 * rate})
        for length, milliseconds in zip((32, 512), latencies, strict=True):
            rows.append({**mark, "case": f"single{length}", "p50_ms": milliseconds})
    return rows

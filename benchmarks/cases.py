"""The cases that the engine's benchmarks share: which texts, and how a run over them is timed.

Not a script. It knows lengths, random ids and clocks; it knows no engine and no torch.

A case is `NxL` (N texts of L tokens), `NxL+P` (each behind the same P tokens), `mixed` (1024 lengths drawn
log-normally, cut to 8..4096) or `singleL` (one text of L tokens at a time).
"""

from __future__ import annotations

import random
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from anydim.types import Item

Run = Callable[[list[Item]], None]

BATCHES: Final = ("2048x32", "1024x128", "512x512", "64x4096", "mixed", "1x32768")
SINGLES: Final = ("single32", "single512")
_WARM_RUNS: Final = 10


@dataclass(frozen=True, slots=True)
class Case:
    """Texts to run.

    Attributes:
        name: as on the command line.
        lengths: tokens of each text, the shared ones included.
        shared: tokens that all texts begin with.
        single: one text at a time, timed alone.
    """

    name: str
    lengths: tuple[int, ...]
    shared: int = 0
    single: bool = False

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return sum(self.lengths)

    def cut(self, most: int) -> Case:
        """The same case with its first texts only, up to the one that reaches ``most`` tokens."""
        tokens = np.cumsum(self.lengths)
        return replace(self, lengths=self.lengths[: int(np.searchsorted(tokens, most)) + 1])


def case_of(name: str) -> Case:
    """The case behind a name.

    Raises:
        ValueError: no case is written like that.
    """
    if name == "mixed":
        draw = random.Random(7)
        return Case(name, tuple(min(max(int(draw.lognormvariate(5, 1)), 8), 4096) for _ in range(1024)))
    if found := re.fullmatch(r"single([1-9]\d*)", name):
        return Case(name, (int(found[1]),), single=True)
    if found := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)(?:\+([1-9]\d*))?", name):
        shared = int(found[3] or 0)
        return Case(name, (int(found[2]) + shared,) * int(found[1]), shared)
    raise ValueError(f"no case is called {name}: write 512x512, 1024x128+100, mixed or single32")


def fresh_items(case: Case, vocabulary: int, dims: Sequence[int]) -> list[Item]:
    """Random ids, never the same twice but for the shared ones of a case; dimensions in turn."""
    draw = np.random.default_rng()
    ids = [draw.integers(0, vocabulary, length, dtype=np.int32) for length in case.lengths]
    for text in ids:
        text[: case.shared] = ids[0][: case.shared]
    return [Item(text, dims[place % len(dims)]) for place, text in enumerate(ids)]


def throughput(run: Run, case: Case, vocabulary: int, dims: Sequence[int], passes: int) -> dict[str, float]:
    """Tokens a second, the median of passes over fresh ids, after one pass that is not counted; and their spread."""
    rates = []
    for _ in range(passes + 1):
        items = fresh_items(case, vocabulary, dims)
        began = time.perf_counter()
        run(items)
        rates.append(case.tokens / (time.perf_counter() - began))
    middle = statistics.median(rates[1:])
    return {"tokens_per_s": middle, "spread": (max(rates[1:]) - min(rates[1:])) / middle}


def latency(run: Run, case: Case, vocabulary: int, dim: int, runs: int) -> dict[str, float]:
    """p50 and p99 in milliseconds of one text at a time."""
    milliseconds = []
    for _ in range(runs + _WARM_RUNS):
        items = fresh_items(case, vocabulary, [dim])
        began = time.perf_counter()
        run(items)
        milliseconds.append(1e3 * (time.perf_counter() - began))
    ordered = sorted(milliseconds[_WARM_RUNS:])
    return {"p50_ms": ordered[len(ordered) // 2], "p99_ms": ordered[int(0.99 * len(ordered))]}


def measured(run: Run, case: Case, vocabulary: int, width: int, passes: int, runs: int) -> dict[str, Any]:
    """The figures of one case; a mixed batch asks for four dimensions in turn."""
    if case.single:
        return latency(run, case, vocabulary, width, runs)
    dims = sorted({32, 64, min(1024, width), width}) if case.name == "mixed" else [width]
    return throughput(run, case, vocabulary, dims, passes)

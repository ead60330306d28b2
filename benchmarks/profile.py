"""How much of the time does the GPU wait, and what does it spend the rest on?

Run: python -m benchmarks.profile [--shape 4b] [--cases 2048x32 512x512 mixed] [--seconds 3] [--single 32]
     [--trace FOLDER] [--out FILE]

A saturated case: so many passes of the case are queued at once that the engine works for some seconds without waiting
for anybody. Idle is the part of the time from the first batch's first kernel or copy to the last batch's last one in
which the device runs nothing. The time that it works is divided among families of kernels, also a layer and batch.
The profiler slows the host down, so that the idle share is an upper bound; the row says how fast the run was with and
without it.

--single L: one text of L tokens at a time, with a pause between them. Of the time a caller waits, how much does the
device work, how much lies between its kernels, and how much is the host's before and after?

It knows the engine and torch's profiler; it knows no HTTP.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from anydim.engine.engine import Engine
from anydim.engine.load import load_engine
from anydim.models.build import resolve_device
from anydim.models.card import ModelCard, read_card
from benchmarks import cases, intervals, ours, report, shapes
from benchmarks.cases import Case, case_of, fresh_items
from benchmarks.trace import Event, by_family, by_name, traced

_TOP_KERNELS: Final = 12
_TOP_GAPS: Final = 8
_PAUSE_SECONDS: Final = 0.005  # between single texts, so that their kernels can be told apart
_NAME_WIDTH: Final = 70


@dataclass(frozen=True, slots=True)
class Bench:
    """What every profile needs."""

    engine: Engine
    card: ModelCard
    device: torch.device
    layers: int
    trace: Path | None

    def kept(self, name: str) -> Path | None:
        """Where the Chrome trace of a case goes."""
        return None if self.trace is None else self.trace / f"{name}.json"


def saturated(bench: Bench, case: Case, seconds: float, plain: float) -> list[dict[str, Any]]:
    """Rows of one saturated case: the idle share, then families, then kernels.

    Args:
        bench: the engine.
        case: its texts.
        seconds: how long to keep the engine busy, about.
        plain: tokens a second without the profiler.
    """
    run = ours.through(bench.engine)
    passes = max(1, math.ceil(seconds * plain / case.tokens))
    items = [item for _ in range(passes) for item in fresh_items(case, bench.card.vocab_size, [bench.card.width])]
    taken: list[float] = []
    before = bench.engine.status().counts.batches

    def work() -> None:
        began = time.perf_counter()
        run(items)
        taken.append(time.perf_counter() - began)

    events = traced(work, bench.device, bench.kept(case.name))
    batches = bench.engine.status().counts.batches - before
    spans = [event.span for event in events]
    row = {
        "case": case.name,
        "idle_share": intervals.idle_share(spans),
        "window_s": intervals.window_of(spans) / 1e6,
        "batches": batches,
        "longest_gap_us": max((end - begin for begin, end in intervals.gaps(spans)), default=0.0),
        "tokens_per_s": plain,
        "profiled_tokens_per_s": passes * case.tokens / taken[0],
    }
    return [row, *families(case.name, events, batches * bench.layers), *kernels(case.name, events, batches)]


def families(case: str, events: Sequence[Event], layers: int) -> list[dict[str, Any]]:
    """One row a family: its share of the device's working time, and microseconds a layer and batch."""
    sums = by_family(events)
    whole = sum(sums.values())
    return [
        {"case": case, "family": family, "share": spent / whole, "us_a_layer": spent / max(layers, 1)}
        for family, spent in sums.items()
    ]


def kernels(case: str, events: Sequence[Event], batches: int) -> list[dict[str, Any]]:
    """The kernels that take longest, with their calls a batch."""
    sums = by_name(events)
    whole = sum(sums.values())
    calls = Counter(event.name for event in events)
    return [
        {
            "case": case,
            "kernel": name[:_NAME_WIDTH],
            "share": spent / whole,
            "us_a_call": spent / calls[name],
            "calls_a_batch": calls[name] / max(batches, 1),
        }
        for name, spent in list(sums.items())[:_TOP_KERNELS]
    ]


def single(bench: Bench, case: Case, runs: int, plain: float) -> list[dict[str, Any]]:
    """Rows of one text at a time: where its time goes, then families, kernels and the longest gaps.

    Args:
        bench: the engine.
        case: its one text.
        runs: how many times.
        plain: p50 in milliseconds without the profiler.
    """
    run = ours.through(bench.engine)
    waited: list[float] = []

    def work() -> None:
        for _ in range(runs):
            items = fresh_items(case, bench.card.vocab_size, [bench.card.width])
            time.sleep(_PAUSE_SECONDS)
            began = time.perf_counter()
            run(items)
            waited.append(1e6 * (time.perf_counter() - began))

    events = traced(work, bench.device, bench.kept(case.name))
    texts = by_text(events)
    waits = statistics.median(waited)
    window = statistics.median(intervals.window_of([event.span for event in text]) for text in texts)
    busy = statistics.median(intervals.covered(event.span for event in text) for text in texts)
    row = {
        "case": case.name,
        "p50_ms": plain,
        "profiled_p50_ms": waits / 1e3,
        "device_ms": window / 1e3,
        "busy_ms": busy / 1e3,
        "between_kernels_ms": (window - busy) / 1e3,
        "host_ms": (waits - window) / 1e3,
        "host_share": 1 - window / waits,
        "kernels": statistics.median(len(text) for text in texts),
        "texts": len(texts),
    }
    rows = [row, *families(case.name, events, len(texts) * bench.layers), *kernels(case.name, events, len(texts))]
    return [*rows, *longest_gaps(case.name, texts)]


def by_text(events: Sequence[Event]) -> list[list[Event]]:
    """The events of each single text: those between two pauses."""
    windows = intervals.groups((event.span for event in events), 1e6 * _PAUSE_SECONDS / 2)
    texts: list[list[Event]] = [[] for _ in windows]
    place = 0
    for event in events:
        while event.begin > windows[place][1]:
            place += 1
        texts[place].append(event)
    return texts


def longest_gaps(case: str, texts: Sequence[Sequence[Event]]) -> list[dict[str, Any]]:
    """Between which kernels the device waits longest, in the text of median length."""
    ordered = sorted(texts, key=lambda text: intervals.window_of([event.span for event in text]))
    text = ordered[len(ordered) // 2]
    ends = {event.end: event.name for event in text}
    begins = {event.begin: event.name for event in text}
    found = sorted(intervals.gaps(event.span for event in text), key=lambda gap: gap[0] - gap[1])
    return [
        {"case": case, "gap_us": end - begin, "after": ends[begin][:_NAME_WIDTH], "before": begins[end][:_NAME_WIDTH]}
        for begin, end in found[:_TOP_GAPS]
    ]


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """All cases on one engine."""
    card = read_card(folder)
    settings = ours.settings_of(options, folder, cuda_graphs=not options.no_graphs)
    engine, _ = load_engine(card, settings.model, settings.engine, show_progress=True)
    device = resolve_device(options.device)
    rows: list[dict[str, Any]] = []
    chosen = [case_of(name) for name in (*options.cases, *(f"single{length}" for length in options.single))]
    with engine:
        bench = Bench(engine, card, device, shapes.SHAPES[options.shape].layers, options.trace)
        run, runs = ours.through(engine), options.single_runs
        # Before the first trace: a profiler that has run may leave the device slower than it found it.
        plain = [cases.measured(run, case, card.vocab_size, card.width, 1, runs) for case in chosen]
        for case, figures in zip(chosen, plain, strict=True):
            if case.single:
                rows += single(bench, case, runs, figures["p50_ms"])
            else:
                rows += saturated(bench, case, options.seconds, figures["tokens_per_s"])
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ours.add_flags(parser)
    parser.add_argument("--cases", nargs="*", default=["2048x32", "512x512", "mixed"])
    parser.add_argument("--seconds", type=float, default=3.0, help="of work in a saturated case")
    parser.add_argument("--single", nargs="*", type=int, default=[], metavar="L", help="texts of L tokens, one by one")
    parser.add_argument("--single-runs", type=int, default=50)
    parser.add_argument("--no-graphs", action="store_true")
    parser.add_argument("--trace", type=Path, help="a folder for Chrome traces, one a case")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(options, shapes.write(options.shape, Path(folder)))
    report.publish(f"profile-{options.shape}-{ours.precision_of(options)}", rows, options.out)


if __name__ == "__main__":
    main()

"""How fast is the engine itself, and how near to what the card can do? Token ids in, vectors in host memory out.

Run: python -m benchmarks.offline --shape 4b [--quantization fp8] [--cases 2048x32 mixed ...] [--plain attend ...]
     [--rival [transformers sentence-transformers]] [--out benchmarks/results]

Random weights. Cases: benchmarks/cases.py. Each pass draws fresh random ids; throughput is the median of 3 passes, one
text's latency p50 and p99 of 200. Behind our own cases, on the warm card, the limits of the card are measured
(benchmarks/limits.py), and every figure gets its share of them (benchmarks/roofline.py). The rivals follow on the freed
card (benchmarks/rivals.py). Figures that others reached in earlier runs are printed as such (benchmarks/published.py).
It knows engines, no HTTP.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from anydim.engine.load import batch_tokens, load_engine
from anydim.models.build import resolve_device
from anydim.models.card import ModelCard, read_card
from benchmarks import cases, limits, ours, published, report, rivals, shapes
from benchmarks.cases import case_of
from benchmarks.roofline import Limits, with_share


def measure_cases(
    run: cases.Run, names: Sequence[str], engine: str, card: ModelCard, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """One row a case; on a GPU with the most memory that was taken meanwhile."""
    rows = []
    for name in names:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        figures = cases.measured(run, case_of(name), card.vocab_size, card.width, options.passes, options.single_runs)
        if torch.cuda.is_available():
            figures["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
            figures["reserved_gib"] = torch.cuda.max_memory_reserved() / 2**30
        rows.append({"engine": engine, "case": name, **figures})
        print(rows[-1], flush=True)
    return rows


def measure_ours(card: ModelCard, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Start, every case, and the most memory that batches of the usual size took."""
    changes = {"plain_ops": options.plain, "cuda_graphs": not options.no_graphs}
    settings = ours.settings_of(options, folder, **changes)
    engine, started = load_engine(card, settings.model, settings.engine, show_progress=True)
    rows: list[dict[str, Any]] = [
        {
            "engine": "anydim",
            "case": "start",
            "device_s": started.device_seconds,
            "weights_s": started.weights_seconds,
            "warmup_s": started.warmup_seconds,
        }
    ]
    budget = batch_tokens(settings.engine, resolve_device(options.device))
    print(rows, flush=True)
    gc.collect()
    gc.freeze()  # as the server's engine process does
    with engine:
        rows += measure_cases(ours.through(engine), options.cases, "anydim", card, options)
    gc.unfreeze()
    usual = [row for row in rows if "peak_gib" in row and max(case_of(row["case"]).lengths) <= budget]
    if usual:
        most = {key: max(row[key] for row in usual) for key in ("peak_gib", "reserved_gib")}
        rows.append({"engine": "anydim", "case": "memory", **most, "batch_tokens": budget})
    return rows


def measure_rivals(card: ModelCard, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rivals that are asked for and installed, one after another."""
    rows = []
    names = options.rival_cases or [name for name in options.cases if name != "1x32768"]
    for name in options.rival or ():
        run = rivals.rival(name, folder, resolve_device(options.device), getattr(torch, options.dtype))
        if run is not None:
            rows += measure_cases(run, names, name, card, options)
        del run
        ours.free()
    return rows


def shared_out(rows: Sequence[dict[str, Any]], found: Limits, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows with their shares of the limit; a rival's products are in the weights' own precision."""
    shape = shapes.SHAPES[options.shape]
    shares = []
    for row in rows:
        if "tokens_per_s" in row or "p50_ms" in row:
            linear = ours.precision_of(options) if row["engine"] == "anydim" else options.dtype
            row = with_share(row, case_of(row["case"]), shape, found, linear, options.dtype)
        shares.append(row)
    return shares


def publish(options: argparse.Namespace, folder: Path) -> None:
    """Measure ours, the card, then the rivals on the freed device."""
    card = read_card(folder)
    rows = measure_ours(card, folder, options)
    ours.free()
    bounds: list[dict[str, Any]] = []
    found = None
    if not options.no_limits:
        shape, device = shapes.SHAPES[options.shape], resolve_device(options.device)
        found, bounds = limits.measure(shape, device, options.dtype, options.quantization)
    rows += measure_rivals(card, folder, options)
    if found is not None:
        rows = shared_out(rows, found, options)
    rows += [*bounds, *published.reference_rows(options.shape)]
    report.publish(f"offline-{options.shape}-{ours.precision_of(options)}", rows, options.out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ours.add_flags(parser)
    parser.add_argument("--cases", nargs="*", default=[*cases.BATCHES, *cases.SINGLES])
    parser.add_argument("--passes", type=int, default=3, help="whose median is a batch's figure")
    parser.add_argument("--single-runs", type=int, default=200)
    parser.add_argument("--plain", nargs="*", default=[], help="kernels to replace by their torch twin")
    parser.add_argument("--no-graphs", action="store_true")
    parser.add_argument("--no-limits", action="store_true", help="do not measure the card's own limits")
    parser.add_argument("--rival", nargs="*", choices=rivals.NAMES, help="rivals to measure too; transformers alone")
    parser.add_argument("--rival-cases", nargs="*")
    options = parser.parse_args(arguments)
    options.rival = ["transformers"] if options.rival == [] else options.rival
    for name in options.cases:
        case_of(name)  # a misspelt case must not be found after minutes of measuring
    with tempfile.TemporaryDirectory() as folder:
        publish(options, shapes.write(options.shape, Path(folder)))


if __name__ == "__main__":
    main()

"""What is each part of the engine worth? Everything on, then one part off at a time.

Run: python -m benchmarks.ablation [--shape 4b] [--cases 2048x32 512x512 mixed single32] [--parts graphs ...] [--quick]
     [--out FILE]

Parts: each Triton kernel (replaced by its torch twin) and all of them, CUDA graphs, the pruning of the last layer, the
second batch in flight, and shared prefixes where this version has them. The weights are made once; each variant is an
engine of its own around them, warmed up as a server's is. Batches are cut after --tokens tokens a pass, so that the
whole run takes minutes. Everything on is measured at the start and at the end. A ratio is the speed without the part
over the mean of these two: 0.90 means that the part is worth a tenth. Their own ratios say how far the machine drifted.
It knows the engine's switches; it knows no HTTP.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch

from anydim.config import all_settings
from anydim.engine.load import load_engine
from anydim.kernels import OP_NAMES, Ops, select_ops
from anydim.models.build import build_model, resolve_device
from anydim.models.card import ModelCard, read_card
from anydim.models.feed import plain_feed, scaled_feed
from anydim.models.packed import Model
from benchmarks import cases, ours, report, shapes
from benchmarks.cases import Case, case_of

ALL_ON: Final = "all on"
AGAIN: Final = "all on, again"
_CASES: Final = ("2048x32", "512x512", "mixed", "single32")
# Operations that a model does not run; the 8-bit product's twin sums in float32, which says nothing about speed.
_EIGHT_BIT: Final = frozenset(
    {"quantize_rows", "scaled_mm", "rms_norm_scaled", "add_rms_norm_scaled", "silu_mul_scaled"}
)
_NOT_EIGHT_BIT: Final = frozenset({"scaled_mm", "silu_mul"})
_PREFIX_CASE: Final = "1024x128+100"
_SWITCHES: Final = MappingProxyType(
    {
        "graphs": ("cuda_graphs", False),
        "pruning": ("prune_last_layer", False),
        "in-flight": ("batches_in_flight", 1),
        "prefixes": ("share_prefixes", False),
    }
)


@dataclass(frozen=True, slots=True)
class Variant:
    """One engine to measure: the part that is off, the kernels replaced, and the settings changed."""

    off: str
    plain: frozenset[str] = frozenset()
    settings: tuple[tuple[str, Any], ...] = ()


def variants(kernels: Collection[str], settings: Collection[str], parts: Collection[str] | None) -> list[Variant]:
    """The variants in order, everything on first and last.

    Args:
        kernels: operations that have a kernel to replace.
        settings: names of the settings that this version has.
        parts: the parts to turn off; None for all there are.
    """
    switched = [
        Variant(part, settings=((name, value),)) for part, (name, value) in _SWITCHES.items() if name in settings
    ]
    replaced = [Variant(name, frozenset([name])) for name in sorted(kernels)]
    if len(kernels) > 1:
        replaced.append(Variant("kernels", frozenset(kernels)))
    chosen = [one for one in (*replaced, *switched) if parts is None or one.off in parts]
    return [Variant(ALL_ON), *chosen, Variant(AGAIN)]


def kernels_of(model: Model, fallback: Ops) -> list[str]:
    """The operations of a model for which it has something faster than their torch twin."""
    own: Any = model
    idle = _EIGHT_BIT if own.feed.dtype is None else _NOT_EIGHT_BIT
    return [name for name in sorted(OP_NAMES - idle) if getattr(own._ops, name) is not getattr(fallback, name)]


def with_twins(model: Model, names: Collection[str], fallback: Ops) -> Model:
    """The same model, of the same weights, with some operations replaced by their torch twins."""
    twin: Any = copy.copy(model)
    if "attend" in names:  # long texts too
        names = {*names, "attend_long"}
    twin._ops = replace(twin._ops, **{name: getattr(fallback, name) for name in names})
    eight, dtype = twin.feed.dtype, twin.embed_tokens.dtype
    twin.feed = plain_feed(twin._ops) if eight is None else scaled_feed(twin._ops, eight, dtype)
    kept: Model = twin
    return kept


@dataclass(frozen=True, slots=True)
class Bench:
    """What all variants share."""

    options: argparse.Namespace
    folder: Path
    card: ModelCard
    model: Model
    fallback: Ops

    def measure(self, variant: Variant) -> list[dict[str, Any]]:
        """One row a case; a variant that fails says so and the run goes on."""
        rows: list[dict[str, Any]] = []
        try:
            settings = ours.settings_of(self.options, self.folder, **dict(variant.settings))
            loaded = with_twins(self.model, variant.plain, self.fallback)
            engine, _ = load_engine(self.card, settings.model, settings.engine, False, loaded)
            gc.collect()
            gc.freeze()  # as the server's engine process does
            with engine:
                rows += [self._row(variant, case_of(name), ours.through(engine)) for name in self.options.cases]
        except Exception as error:
            rows = [{"off": variant.off, "case": case, "error": str(error)[:200]} for case in self.options.cases]
        gc.unfreeze()
        ours.free()
        return rows

    def _row(self, variant: Variant, case: Case, run: cases.Run) -> dict[str, Any]:
        part = case.cut(self.options.tokens)
        passes, runs = (2, 50) if self.options.quick else (3, 200)
        found = cases.measured(run, part, self.card.vocab_size, self.card.width, passes, runs)
        kept = {key: value for key, value in found.items() if key in ("tokens_per_s", "p50_ms")}
        return {"off": variant.off, "case": case.name, **kept}


def with_ratios(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows with their speed over that of everything on."""
    whole: dict[str, list[float]] = {}
    for row in rows:
        if row["off"] in (ALL_ON, AGAIN) and _speed(row):
            whole.setdefault(row["case"], []).append(_speed(row))
    return [
        {**row, "ratio": _speed(row) / statistics.mean(whole[row["case"]])}
        if _speed(row) and row["case"] in whole
        else dict(row)
        for row in rows
    ]


def side_by_side(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """One line a variant, one column a case: the figure, and the ratio in brackets."""
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        figure = f"{row['tokens_per_s']:,.0f} tok/s" if "tokens_per_s" in row else f"{row.get('p50_ms', 0):.2f} ms"
        text = "failed" if "error" in row else f"{figure} ({row.get('ratio', 0):.3f})"
        lines.setdefault(row["off"], {"off": row["off"]})[row["case"]] = text
    return list(lines.values())


def _speed(row: Mapping[str, Any]) -> float:
    """More is better; 0 where the variant failed."""
    return float(row.get("tokens_per_s", 0.0)) or (1 / row["p50_ms"] if "p50_ms" in row else 0.0)


def measure(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Make the weights once, then run every variant."""
    card = read_card(folder)
    settings = ours.settings_of(options, folder)
    device, dtype = resolve_device(options.device), getattr(torch, options.dtype)
    model = build_model(card, settings.model, device, dtype, (), lambda *_: None)
    fallback = select_ops(device, dtype, OP_NAMES)
    bench = Bench(options, folder, card, model, fallback)
    rows: list[dict[str, Any]] = []
    known = [setting.name for setting in all_settings()]
    for variant in variants(kernels_of(model, fallback), known, options.parts):
        began = time.perf_counter()
        found = bench.measure(variant)
        for row in found:  # so that a run that is cut short was not for nothing
            print(json.dumps(row), flush=True)
        print(f"{variant.off}: {time.perf_counter() - began:.1f} s", flush=True)
        rows += found
    return with_ratios(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ours.add_flags(parser)
    shares = _SWITCHES["prefixes"][0] in [setting.name for setting in all_settings()]
    parser.add_argument("--cases", nargs="*", default=[*_CASES, *([_PREFIX_CASE] if shares else [])])
    parts = [*sorted(OP_NAMES), "kernels", *_SWITCHES]
    parser.add_argument("--parts", nargs="*", choices=parts, help="what to turn off; everything there is by default")
    parser.add_argument("--tokens", type=int, help="most tokens of a pass, about; 98304, or 65536 with --quick")
    parser.add_argument("--quick", action="store_true", help="fewer tokens and passes: less time, more noise")
    options = parser.parse_args(arguments)
    options.tokens = options.tokens or (65536 if options.quick else 98304)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(options, shapes.write(options.shape, Path(folder)))
    print("\n" + report.table(side_by_side(rows)))
    report.publish(f"ablation-{options.shape}-{ours.precision_of(options)}", rows, options.out)


if __name__ == "__main__":
    main()

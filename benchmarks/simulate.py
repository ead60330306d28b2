"""Does a simulation of the queue reproduce what was measured on one node?

Run: python -m benchmarks.simulate [LOAD.json ...] [--times OFFLINE.json] [--chart FILE.svg]

Replays the cases of result files of `load` in simulated time, in their order, and prints measured and simulated figures
side by side; the exit code is 1 where one is further off than 15 %. Without files it takes those of an H100 and of an
H200 with the 4B shape. The queue is the one that a server runs; how long a batch takes is a formula, fitted to a result
file of `offline` of an H100 with the same model. `plan` extrapolates with the same parts.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from anydim.engine.policy import Policy
from benchmarks import report
from benchmarks.queueing import (
    FRONT_SECONDS,
    FRONT_TEXT_SECONDS,
    Clock,
    Draw,
    Engine,
    Seen,
    again,
    jitter,
    lines,
    offer,
    saturate,
    spread,
    steady,
)
from benchmarks.service_times import ServiceTimes

MOST_OFF: Final = 0.15
RESULTS: Final = Path(__file__).parent / "results"
TIMES: Final = RESULTS / "2026-11-26-offline-4b-bfloat16-h100.json"
LOADS: Final = (RESULTS / "2026-11-26-load-4b-h100-3.json", RESULTS / "2026-11-26-load-4b-h200-2.json")
_DRAWS: Final = (8192, 256)  # different requests of an overload, now and in the first runs
_FEW_DRAWS: Final = ("e7f1ad6", "9e2e4c83158740c2cdebee675662fa7e09757510", "5007582")
_NOTHING_ALONE: Final = {"p50_ms": 4.6, "p99_ms": 9.4, "tokens_per_s": 20.0, "requests_per_s": 1.0}  # of serve-4b
_P99: Final = 2.326  # standard deviations
_SPREAD: Final = 0.6  # of the logarithm of a line's tokens
_GPU_LIMITS: Final = (16_384, 1_000_000)  # tokens of a batch and of the queue, as the server has them by default
_CPU_LIMITS: Final = (2_048, 1_000_000)
_COMPARED: Final = ("requests_per_s", "tokens_per_s", "p50_ms", "p99_ms")


@dataclass(frozen=True, slots=True)
class Measured:
    """A result file of `load`, as the simulation needs it.

    Attributes:
        rows: by what they hold.
        gap: of a batch that finds the device idle, from `slice_ms`, which is compared with nothing.
        draws: different requests of an overload; what is under way when it comes again shares a forward.
        options: of the command that measured it.
        times: of the device.
        batch_tokens, queue_tokens: of the server.
        front: of a request outside the engine, from p50 and p99 of the short ones alone, which therefore prove nothing.
    """

    rows: Mapping[str, Mapping[str, Any]]
    options: Mapping[str, float]
    times: ServiceTimes
    batch_tokens: int
    queue_tokens: int
    front: tuple[float, float]
    draws: int
    gap: float

    @classmethod
    def of_file(cls, file: Path, times: Path) -> Measured:
        """Read a file; on a CPU, where `offline` has none, the speed in bulk gives the service times."""
        found = json.loads(file.read_text())
        rows = {row.get("what", row["case"]): row for row in found["rows"] if row["case"] in ("mixed", "overload")}
        of_gpu = bool(found["gpu"])
        if of_gpu:
            device = ServiceTimes.of_file(times)
            alone = rows.get("short alone", _NOTHING_ALONE)
            front = _front(alone, device([round(_mean(alone))]) + FRONT_SECONDS + FRONT_TEXT_SECONDS)
        else:
            device = ServiceTimes.of_rates(rows["bulk alone"]["tokens_per_s"], rows["short alone"]["p50_ms"] / 1e3)
            front = (0.0, 0.0)
        batch, queue = _GPU_LIMITS if of_gpu else _CPU_LIMITS
        few = found["commit"] in _FEW_DRAWS
        options = _options(found["command"], of_gpu, few)
        gap = _gap(rows["mixed"], device) if of_gpu and "mixed" in rows else 0.0
        return cls(rows, options, device, batch, queue, front, _DRAWS[few], gap)

    def engine(self, clock: Clock, slice_tokens: int, queue_tokens: int | None = None) -> Engine:
        """The server, simulated."""
        policy = Policy(
            batch_tokens=self.batch_tokens, queue_tokens=queue_tokens or self.queue_tokens, slice_tokens=slice_tokens
        )
        return Engine(clock, policy, self.times, jitter(*self.front), gap=self.gap)


def mixed(measured: Measured) -> Iterator[tuple[str, Seen]]:
    """Short alone, bulk alone, and both together, in turns and in the order in which `load` offers them."""
    rows, options = measured.rows, measured.options
    slice_tokens, rate = int(rows["mixed"]["slice_tokens"]), rows["short alone"]["rate_per_s"]
    short, bulk = _lines(rows["short alone"]), _documents(rows["bulk alone"])
    rounds, connections = int(options["rounds"]), int(options["connections"])
    seconds = options["seconds"] / rounds
    names = ("short alone", "bulk alone", "short beside bulk", "bulk beside short")
    seen = {name: Seen() for name in names}
    clock = Clock()
    engine = measured.engine(clock, slice_tokens)

    def until_done(**offered: Seen) -> None:
        clock.run()
        for name, found in offered.items():
            seen[name.replace("_", " ")].join(found)

    for _ in range(rounds):
        now = clock.now
        saturate(clock, engine, 1, bulk, now, seconds / 2)
        clock.run()
        now = clock.now
        until_done(short_alone=offer(clock, lambda: engine, steady(rate, now, seconds), short))
        now = clock.now
        until_done(bulk_alone=saturate(clock, engine, connections, bulk, now, seconds))
        now = clock.now
        until_done(
            bulk_beside_short=saturate(clock, engine, connections, bulk, now, 1.5 * seconds + 1.5),
            short_beside_bulk=offer(clock, lambda: engine, steady(rate, now + 1.0, 1.5 * seconds), short),
        )
    yield from seen.items()


def overload(measured: Measured) -> Iterator[tuple[str, Seen]]:
    """The most that can be answered, and three times as much a second, in turns as `load` has them."""
    rows, options = measured.rows, measured.options
    texts, rounds = int(options["texts"]), int(options["rounds"])
    seconds, rate = options["seconds"] / rounds, rows["three times as much"]["offered_per_s"]
    slice_tokens = int(rows["mixed"]["slice_tokens"]) if "mixed" in rows else measured.batch_tokens // 2
    draw = lines(_mean(rows["peak"]) / texts, texts)
    clock, most, over = Clock(), Seen(), Seen()
    engine = measured.engine(clock, slice_tokens, int(rows["overload"]["queue_tokens"]))
    for _ in range(rounds):
        turn = saturate(clock, engine, int(options["most"]), again(draw, measured.draws), clock.now, seconds)
        clock.run()
        most.join(turn)
        turn = offer(clock, lambda: engine, steady(rate, clock.now, seconds), again(draw, measured.draws))
        clock.run()
        over.join(turn)
    yield "peak", most
    yield "three times as much", over


_CASES: Final[Mapping[str, Callable[[Measured], Iterator[tuple[str, Seen]]]]] = {"mixed": mixed, "overload": overload}


def compare(measured: Measured) -> list[dict[str, Any]]:
    """Each figure that was measured, the simulated one beside it, and whether it is near enough."""
    found = []
    for case, simulate in _CASES.items():
        if case not in measured.rows:
            continue
        for what, seen in simulate(measured):
            ours, theirs = seen.row(), measured.rows[what]
            for name in _COMPARED:
                off = ours[name] / theirs[name] - 1
                found.append(
                    {
                        "what": what,
                        "figure": name,
                        "measured": theirs[name],
                        "simulated": ours[name],
                        "off": off,
                        "near": abs(off) <= MOST_OFF,
                    }
                )
    return found


def _front(row: Mapping[str, Any], spent: float) -> tuple[float, float]:
    """Median and spread of what requests that wait for nobody take beside the device."""
    median, most = (max(1e-6, row[name] / 1e3 - spent) for name in ("p50_ms", "p99_ms"))
    return median, math.log(most / median) / _P99


def _gap(row: Mapping[str, Any], device: ServiceTimes) -> float:
    """What a document that finds the server idle takes beside its forward and its front end."""
    spent = device([int(row["slice_tokens"])]) + FRONT_SECONDS + FRONT_TEXT_SECONDS
    return float(max(0.0, row["slice_ms"] / 1e3 - spent))


def _lines(row: Mapping[str, Any]) -> Draw:
    return spread(_mean(row), _SPREAD, 512)


def _documents(row: Mapping[str, Any]) -> Draw:
    return spread(_mean(row), 0.02, int(row["document_tokens"]))


def _mean(row: Mapping[str, Any]) -> float:
    """Tokens of a request."""
    return float(row["tokens_per_s"] / row["requests_per_s"])


def _options(command: str, of_gpu: bool, was_early: bool) -> dict[str, float]:
    """The numbers of a command line, over the defaults of `load`."""
    found = {
        "seconds": 10.0,
        "connections": 8.0,
        "rounds": 4.0,
        "texts": 16.0,
        "most": 64.0 if of_gpu and not was_early else 16.0,
    }
    words = shlex.split(command)
    for flag, value in itertools.pairwise(words):
        name = flag.removeprefix("--")
        if flag.startswith("--") and name in found:
            found[name] = float(value)
    return found


def check(files: Sequence[Path], times: Path) -> int:
    """Compare each file; the exit code."""
    far = 0
    for file in files:
        rows = compare(Measured.of_file(file, times))
        print(f"\n{file.name}\n{report.table(rows)}")
        far += sum(not row["near"] for row in rows)
    print(
        json.dumps(
            {"benchmark": "simulate", "files": [file.name for file in files], "further_off_than_15_percent": far}
        )
    )
    return 1 if far else 0


def draw_chart(files: Sequence[Path], times: Path, place: Path) -> None:
    """Simulated over measured figures, a point each; needs matplotlib."""
    plt = importlib.import_module("matplotlib.pyplot")
    plt.rcParams.update({"svg.hashsalt": "anydim", "svg.fonttype": "none"})
    figure, axes = plt.subplots(figsize=(6, 7.7))
    axes.axvspan(-100 * MOST_OFF, 100 * MOST_OFF, alpha=0.15)
    for file, marker in zip(files, "os^v", strict=False):
        rows = compare(Measured.of_file(file, times))
        names = [f"{row['what']}: {row['figure']}" for row in rows]
        axes.plot([100 * row["off"] for row in rows], names, marker, label=file.stem)
    axes.set(xlabel="simulated against measured, %", title="One GPU, 4B, bfloat16")
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.tight_layout()
    place.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(place, metadata={"Date": None})
    print(f"{place} written")


def main() -> None:
    """Parse the command line, do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=list(LOADS), help="result files of load")
    parser.add_argument("--times", type=Path, default=TIMES, help="result file of offline")
    parser.add_argument("--chart", type=Path, help="file for a chart")
    options = parser.parse_args()
    if options.chart is not None:
        draw_chart(options.files, options.times, options.chart)
    sys.exit(check(options.files, options.times))


if __name__ == "__main__":
    main()

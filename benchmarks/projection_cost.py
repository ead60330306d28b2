"""What does a projection cost to serve? The same texts with one and without, in turn, many times.

Run: python -m benchmarks.projection_cost [--models minilm starter] [--seconds 60] [--out FOLDER]
     python -m benchmarks.projection_cost --shape 4b [--quantization fp8] [--cases 2048x32 512x512 16x32 single32]

Four engines around the same weights: two without a projection, two with. Each round draws fresh texts and gives all
four the same ones, in an order drawn anew. The cost is the median over the rounds of the time with a projection over
that without, with the interval in which it lies in 95 of 100 resamples of the rounds. The controls are the second
engine of a kind over the first: both do the same, so that what they show is made up by the machine, such as where an
engine's memory came to lie. At most 1 % is required: met where the interval ends below it, missed where it begins
above, and not told where it holds 1 % or a control is further off than that.

With --models: text in, vectors out on one CPU thread, the tokenizer included, and in place of engines what an engine's
thread does with a batch, all four in this thread: threads of their own differed by 2 % and more. The time is that of
the process on its core, so that other work on the machine counts only by what it does to caches. With --shape: random
weights, token ids in, vectors in host memory out, by the clock on the wall; small batches through CUDA graphs
(``replayed``), and once more without (``eager``). The rotation is random too: the time does not depend on what it says.
It knows engines and clocks; it knows no HTTP.

Legend: R rounds, D full dimension.
"""

from __future__ import annotations

import argparse
import gc
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from anydim.config import Settings, load_settings
from anydim.engine.engine import Engine
from anydim.engine.load import load_engine, make_task
from anydim.engine.packing import pack
from anydim.engine.runner import Runner
from anydim.heads.dimension import rotate
from anydim.intake.intake import Intake
from anydim.intake.request import EmbedRequest
from anydim.models.build import build_model, resolve_device, resolve_dtype
from anydim.models.card import ModelCard, read_card
from anydim.models.identity import identity_of
from anydim.models.packed import Model
from anydim.models.rotation import Rotation, write_rotation
from anydim.quality.intervals import RESAMPLES, Interval
from anydim.quality.workers import one_thread_each
from anydim.types import Item
from benchmarks import ours, report, shapes
from benchmarks.cases import Case, Run, case_of, fresh_items
from benchmarks.corpus import Corpus
from benchmarks.texts import folder_of

Seconds = NDArray[np.float64]
Way = Callable[[Any], Any]
"""Computes the texts of a round."""

PLAIN, TURNED = "without", "with"
_AGAIN: Final = " again"
_ENGINES: Final = (PLAIN, TURNED, PLAIN + _AGAIN, TURNED + _AGAIN)
_MOST_PERCENT: Final = 1.0  # that a projection may cost
_SURE: Final = 0.95
_WARM_ROUNDS: Final = 2
_CASES: Final = ("2048x32", "512x512", "16x32", "single32")
_GRAPH_TOKENS: Final = 1024  # up to here a batch is replayed where there are graphs
_PRODUCTS: Final = 200
_TEXTS: Final = 16  # of a round on the CPU: short, so that both sides of a ratio see the same machine


@dataclass(frozen=True, slots=True)
class Budget:
    """How long a case is measured.

    Attributes:
        seconds: no round begins after so long.
        least: rounds that there are in any case.
    """

    seconds: float
    least: int


@dataclass(slots=True)
class Rounds:
    """The seconds that each engine took, round by round."""

    taken: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _ENGINES})

    @property
    def count(self) -> int:
        """Rounds that count."""
        return len(self.taken[PLAIN]) - _WARM_ROUNDS

    def of(self, name: str) -> Seconds:
        """Of one engine: float64 (R,), without the first rounds."""
        return np.array(self.taken[name][_WARM_ROUNDS:])

    def both(self, kind: str) -> Seconds:
        """The mean of the two engines of a kind: float64 (R,)."""
        return (self.of(kind) + self.of(kind + _AGAIN)) / 2

    @property
    def middles(self) -> dict[str, float]:
        """The median seconds of each kind."""
        return {kind: float(np.median(self.both(kind))) for kind in (PLAIN, TURNED)}


def measure(ways: Mapping[str, Way], draw: Callable[[], Any], clock: Callable[[], float], budget: Budget) -> Rounds:
    """Rounds over fresh texts, each through every engine, in an order drawn anew.

    Args:
        ways: an engine's name -> how it computes.
        draw: the texts of a round.
        clock: what counts as time.
        budget: how long.
    """
    rounds, shuffled = Rounds(), random.Random(0)
    began = time.perf_counter()
    while rounds.count < budget.least or time.perf_counter() - began < budget.seconds:
        work = draw()
        for name in shuffled.sample(_ENGINES, len(_ENGINES)):
            start = clock()
            ways[name](work)
            rounds.taken[name].append(clock() - start)
    return rounds


def verdict(rounds: Rounds) -> dict[str, Any]:
    """The cost with its interval and the controls, in percent, and whether the cost is below the bar."""
    cost = _percent(rounds.both(TURNED) / rounds.both(PLAIN))
    controls = {kind: _percent(rounds.of(kind + _AGAIN) / rounds.of(kind)).value for kind in (PLAIN, TURNED)}
    return {
        "rounds": rounds.count,
        "cost_percent": cost.value,
        "cost_low": cost.low,
        "cost_high": cost.high,
        **{f"control_{kind}": value for kind, value in controls.items()},
        "bar": _judged(cost, controls.values()),
    }


def _judged(cost: Interval, controls: Iterable[float]) -> str:
    if max(map(abs, controls)) > _MOST_PERCENT:
        return "not told"
    return "met" if cost.high <= _MOST_PERCENT else "missed" if cost.low > _MOST_PERCENT else "not told"


def _percent(shares_R: Seconds) -> Interval:
    """How far a median of shares is above 1; drawn anew by rounds."""
    places_RR = np.random.default_rng(0).integers(0, len(shares_R), (RESAMPLES, len(shares_R)))
    found_R = np.median(shares_R[places_RR], axis=1)
    low, high = np.quantile(found_R, [(1 - _SURE) / 2, (1 + _SURE) / 2])
    return Interval(*(100 * (float(share) - 1) for share in (np.median(shares_R), low, high)))


@dataclass(frozen=True, slots=True)
class Bench:
    """What all engines share.

    Attributes:
        card: of the model.
        model: its weights.
        settings: those of an engine, from what differs between them.
        rotation: the file for ``--projection``.
    """

    card: ModelCard
    model: Model
    settings: Callable[..., Settings]
    rotation: Path

    @contextmanager
    def engines(self, **changes: Any) -> Iterator[dict[str, Run]]:
        """The four engines, warmed up; how each runs items."""
        with ExitStack() as stack:
            yield {name: ours.through(stack.enter_context(self._engine(name, changes))) for name in _ENGINES}
        ours.free()

    def runner(self, name: str) -> Run:
        """What an engine's thread does with a batch, in the thread that calls it, on a CPU."""
        device, settings = torch.device("cpu"), self._settings_of(name, {})
        dtype = resolve_dtype(settings.model.dtype, device, self.card.family)
        runner = Runner(self.model, make_task(self.card, settings.model, device), device, dtype)

        def run(items: list[Item]) -> None:
            assert all(output.error is None for output in runner.finish(runner.start(pack(items))))

        return run

    def _settings_of(self, name: str, changes: Mapping[str, Any]) -> Settings:
        projection = str(self.rotation) if name.startswith(TURNED) else None
        return self.settings(projection=projection, **changes)

    def _engine(self, name: str, changes: Mapping[str, Any]) -> Engine:
        settings = self._settings_of(name, changes)
        engine, started = load_engine(self.card, settings.model, settings.engine, False, self.model)
        print(f"{name}: batches of {started.batch_tokens} tokens, ready in {started.warmup_seconds:.1f} s", flush=True)
        return engine


@contextmanager
def bench(folder: Path, settings: Callable[..., Settings]) -> Iterator[Bench]:
    """The weights of a folder, made or loaded once, and a random rotation for them."""
    card, chosen = read_card(folder), settings()
    device = resolve_device(chosen.engine.device)
    dtype = resolve_dtype(chosen.model.dtype, device, card.family)
    model = build_model(card, chosen.model, device, dtype, (), lambda *_: None)
    turn_DD, _ = torch.linalg.qr(torch.randn(card.width, card.width, generator=torch.Generator().manual_seed(0)))
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "rotation.safetensors"
        write_rotation(file, Rotation(turn_DD, None if chosen.model.load_format == "dummy" else identity_of(card)))
        yield Bench(card, model, settings, file)


def of_model(name: str, dim: int, budget: Budget) -> dict[str, Any]:
    """One row: a trained model on one CPU thread, from text."""
    corpus, folder = Corpus("en"), folder_of(name)

    def settings(**changes: Any) -> Settings:
        return load_settings({"model": str(folder), "device": "cpu", **changes}, {})

    with one_thread_each(), bench(folder, settings) as shared:
        intake = Intake.of(shared.card, settings().model)

        def through(run: Run, texts: list[str]) -> None:
            run(intake.prepare(EmbedRequest(inputs=texts, output_dim=dim)))

        ways = {name: partial(through, shared.runner(name)) for name in _ENGINES}
        rounds = measure(ways, lambda: corpus.lines(_TEXTS), time.process_time, budget)
        product = {"product_percent": 100 * _product(shared.card.width) / rounds.middles[PLAIN]}
    rates = {f"texts_per_cpu_s_{kind}": _TEXTS / middle for kind, middle in rounds.middles.items()}
    return {"model": name, "case": f"{_TEXTS} lines", **rates, **product, **verdict(rounds)}


def _product(width: int) -> float:
    """Seconds of the rotation itself for the texts of a round, on one thread."""
    rows_ND, turn_DD = torch.randn(_TEXTS, width), torch.randn(width, width)
    taken = []
    for _ in range(_PRODUCTS):
        began = time.process_time()
        rotate(rows_ND, turn_DD)
        taken.append(time.process_time() - began)
    return float(np.median(taken))


def of_shape(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of a shape with random weights."""
    cases = [case_of(name).cut(options.tokens) for name in options.cases]
    with tempfile.TemporaryDirectory() as scratch:
        folder = shapes.write(options.shape, Path(scratch))
        with bench(folder, partial(ours.settings_of, options, folder)) as shared:
            rows = _rows(shared, cases, options, replays=torch.cuda.is_available())
            small = [case for case in cases if case.tokens <= _GRAPH_TOKENS]
            if torch.cuda.is_available() and small:
                rows += _rows(shared, small, options, replays=False)
    return rows


def _rows(shared: Bench, cases: Sequence[Case], options: argparse.Namespace, replays: bool) -> list[dict[str, Any]]:
    """One row a case, through engines that replay CUDA graphs or do not."""
    budget = Budget(options.seconds, options.least_rounds)
    dim = min(options.dim, shared.card.width)
    rows = []
    with shared.engines(cuda_graphs=replays) as runs:
        gc.collect()
        gc.freeze()  # as the server's engine process does
        for case in cases:
            draw = partial(fresh_items, case, shared.card.vocab_size, [dim])
            rounds = measure(runs, draw, time.perf_counter, budget)
            road = "replayed" if replays and case.tokens <= _GRAPH_TOKENS else "eager"
            rows.append({"case": case.name, "road": road, **_figures(case, rounds), **verdict(rounds)})
            print(rows[-1], flush=True)  # so that a run that is cut short was not for nothing
        gc.unfreeze()
    return rows


def _figures(case: Case, rounds: Rounds) -> dict[str, float]:
    """What each kind of engine does: a time for one text, a rate for many."""
    if case.single:
        return {f"p50_ms_{kind}": 1e3 * middle for kind, middle in rounds.middles.items()}
    return {f"tokens_per_s_{kind}": case.tokens / middle for kind, middle in rounds.middles.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ours.add_flags(parser)
    parser.set_defaults(shape=None)
    parser.add_argument("--models", nargs="*", default=["minilm"], help="minilm, starter or folders; without --shape")
    parser.add_argument("--cases", nargs="*", default=list(_CASES), help="with --shape; see benchmarks/cases.py")
    parser.add_argument("--dim", type=int, default=64, help="components that are asked for")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long a case or model is measured")
    parser.add_argument("--least-rounds", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=65536, help="most tokens of a round, about: its first texts")
    options = parser.parse_args(arguments)
    if options.shape:
        name = f"projection-cost-{options.shape}-{ours.precision_of(options)}"
        report.publish(name, of_shape(options), options.out)
        return
    budget = Budget(options.seconds, options.least_rounds)
    rows = [of_model(model, options.dim, budget) for model in options.models]
    report.publish(f"projection-cost-{'-'.join(Path(model).name for model in options.models)}", rows, options.out)


if __name__ == "__main__":
    main()

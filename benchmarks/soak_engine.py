"""Does memory grow while an engine works? Random mixtures of lengths, dimensions and output types for a while.

Run: python -m benchmarks.soak_engine [--shape 4b] [--seconds 60] [--out FILE]

The engine runs in this process with random weights. Submissions of 1 to 300 texts follow each other, some of them
cancelled. Several times a second the memory is noted: what this process holds of host memory, what torch holds of the
device's, and how much of the device is taken in all. The first quarter does not count: caches fill up there. Through
the rest a line is fitted; `growth_share` is its rise in relation to where it starts.
"""

from __future__ import annotations

import argparse
import gc
import random
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from anydim.engine.engine import Engine
from anydim.engine.load import load_engine
from anydim.models.card import ModelCard, read_card
from anydim.types import Item, Output, OutputDtype
from benchmarks import ours, report, shapes

_AHEAD: Final = 6  # submissions that wait at a time
_SAMPLES_A_SECOND: Final = 4.0
_CANCELLED: Final = 0.05  # share of the submissions
_MIB: Final = 1 << 20

Samples = dict[str, list[float]]


class Mixture:
    """Submissions without end, the same in every run."""

    def __init__(self, card: ModelCard, longest: int) -> None:
        self._card = card
        self._longest = longest
        self._choose = random.Random(5)
        self._draw = np.random.default_rng(5)

    def submission(self) -> list[Item]:
        """1 to 300 texts; lengths log-normal, now and then one as long as may be."""
        count = int(self._choose.choice([1, 1, 2, 8, 40, 300]))
        items = [self._item(self._length()) for _ in range(count)]
        if self._choose.random() < 0.02:
            items.append(self._item(self._longest))
        return items

    def _length(self) -> int:
        return max(1, min(self._longest, int(self._choose.lognormvariate(4, 1.2))))

    def _item(self, length: int) -> Item:
        dims = [*range(32, self._card.width, 32), self._card.width]
        ids_T = self._draw.integers(5, self._card.vocab_size, length, dtype=np.int32)
        kind = self._choose.choice(list(OutputDtype))
        return Item(ids_T, self._choose.choice(dims), kind, normalize=self._choose.random() < 0.8)


def memory() -> dict[str, float]:
    """MiB that are taken now."""
    found = {"host_mib": psutil.Process().memory_info().rss / _MIB}
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        found["torch_mib"] = torch.cuda.memory_reserved() / _MIB
        found["device_mib"] = (total - free) / _MIB
    return found


def check(items: Sequence[Item], outputs: Sequence[Output]) -> int:
    """Whether everyone got what was asked for; the tokens of the submission."""
    for item, output in zip(items, outputs, strict=True):
        assert output.error is None, output.error
        assert output.values.shape == (item.dtype.stored(item.dim),), "another shape than asked for"
    return sum(len(item.ids) for item in items)


def soak(engine: Engine, mixture: Mixture, seconds: float) -> tuple[NDArray[np.float64], Samples, dict[str, int]]:
    """Work for a while: the times of the samples, the samples, and what was done."""
    ahead: deque[tuple[list[Item], Future[list[Output]]]] = deque()
    done = {"submissions": 0, "texts": 0, "tokens": 0, "cancelled": 0}
    times: list[float] = []
    samples: Samples = {}
    choose = random.Random(7)
    began = time.perf_counter()
    while (now := time.perf_counter() - began) < seconds or ahead:
        while now < seconds and len(ahead) < _AHEAD:
            items = mixture.submission()
            ahead.append((items, engine.submit(items)))
        items, future = ahead.popleft()
        if choose.random() < _CANCELLED and future.cancel():
            done["cancelled"] += 1
        else:
            done["tokens"] += check(items, future.result())
            done["texts"] += len(items)
            done["submissions"] += 1
        if not times or now - times[-1] >= 1 / _SAMPLES_A_SECOND:
            times.append(now)
            for name, value in memory().items():
                samples.setdefault(name, []).append(value)
    return np.array(times), samples, done


def line_through(times: NDArray[np.float64], values: Sequence[float]) -> dict[str, float]:
    """First and last value of the fitted line, its rise a minute, and its rise in relation to its start."""
    counted = slice(len(times) // 4, None)
    x, y = times[counted], np.array(values)[counted]
    slope, start = np.polyfit(x - x[0], y, 1) if len(x) > 1 else (0.0, float(y[0]))
    rise = float(slope * (x[-1] - x[0]))
    return {
        "from_mib": float(start),
        "to_mib": float(start) + rise,
        "most_mib": float(max(values)),
        "mib_a_minute": 60 * float(slope),
        "growth_share": rise / max(float(start), 1.0),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, work, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ours.add_flags(parser)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--longest", type=int, default=4096, help="most tokens of a text")
    parser.add_argument("--mem-fraction-static", type=float)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = shapes.write(options.shape, Path(scratch))
        card = read_card(folder)
        settings = ours.settings_of(options, folder, mem_fraction_static=options.mem_fraction_static)
        engine, started = load_engine(card, settings.model, settings.engine, show_progress=True)
    gc.collect()
    gc.freeze()
    with engine:
        mixture = Mixture(card, min(options.longest, card.max_tokens))
        times, samples, done = soak(engine, mixture, options.seconds)
    gc.unfreeze()
    rows: list[dict[str, Any]] = [{"seconds": options.seconds, "batch_tokens": started.batch_tokens, **done}]
    rows += [{"memory": name, **line_through(times, values)} for name, values in samples.items()]
    report.publish(f"soak-{options.shape}-{ours.precision_of(options)}", rows, options.out)


if __name__ == "__main__":
    main()

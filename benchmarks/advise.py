"""How long does `anydim advise` take over vectors that are stored already? The whole command, from start to end.

Run: python -m benchmarks.advise [--count 100000] [--width 1024] [--out FOLDER]

The vectors are drawn anew each time and look like those of documents: groups of some forty, directions whose strength
falls with their number, hidden by a rotation, and one direction that all have in common. They are written as NPY before
the clock runs. Every dimension and every output type, truncated and fitted, is measured. Needs the test extra.

Legend: N vectors, D components, C groups.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np

from anydim.types import Float32Array
from benchmarks import report

_GROUP: Final = 40  # vectors
_INSIDE: Final = 0.8  # spread within a group as a share of that between groups
_SHARED: Final = 2.0  # strength of what all have in common
_PART: Final = 10_000  # vectors made at a time
_BAR: Final = 300.0  # seconds, on two cores
_BAR_SIZE: Final = (100_000, 1024)  # vectors and components that it is for


def vectors(count: int, width: int, seed: int) -> Float32Array:
    """Unit rows float32 (N, D)."""
    draw = np.random.default_rng(seed)
    strengths_D = np.arange(1, width + 1, dtype=np.float32) ** -0.5
    turned_DD = np.linalg.qr(draw.standard_normal((width, width)))[0].astype(np.float32)
    centres_CD = draw.standard_normal((max(count // _GROUP, 1), width), np.float32) * strengths_D
    rows_ND = np.empty((count, width), np.float32)
    for start in range(0, count, _PART):
        some = min(_PART, count - start)
        own_ND = _INSIDE * draw.standard_normal((some, width), np.float32) * strengths_D
        rows = (centres_CD[draw.integers(len(centres_CD), size=some)] + own_ND) @ turned_DD + _SHARED * turned_DD[5]
        rows_ND[start : start + some] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows_ND


def advised(count: int, width: int, seed: int, more: list[str]) -> dict[str, Any]:
    """One call of the command over fresh vectors: seconds, memory, and what it said."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "vectors.npy"
        np.save(file, vectors(count, width, seed))
        words = [sys.executable, "-m", "anydim", "advise", "--corpus", str(file), "-o", f"{scratch}/advise", "--json"]
        load = os.getloadavg()[0]
        began = time.perf_counter()
        done = subprocess.run([*words, *more], stdout=subprocess.PIPE, text=True, check=True)
        seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = json.loads(done.stdout)
    return {
        "vectors": count,
        "width": width,
        "seed": seed,
        "forms": len(said["rows"]),
        "queries": said["units"],
        "fitted_on": said["fitted_on"],
        "measured_on": said["measured_on"],
        "seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_mib": used.ru_maxrss / 1024,
        "load_before": load,
        "bar": ("met" if seconds <= _BAR else "missed") if (count, width) == _BAR_SIZE else None,
        "advice": said["advice"],
    }


def main() -> None:
    """Parse the command line, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the vectors; by default a fresh one")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="further words for the command")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    row = advised(options.count, options.width, options.seed, options.more)
    report.publish("advise", [row], options.out)


if __name__ == "__main__":
    main()

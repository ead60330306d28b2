"""How much memory does a model take at its peak, loading included?

Run: python -m benchmarks.memory [--model starter] [--dtype float32] [--out FILE]

A fresh process imports the engine, notes its resident memory, loads the model, runs full batches of long and of short
texts, and notes its peak. The tokenizer is not counted: it lives in the front end. The bar: at most 1.2 x the weights,
plus an activation budget, which is stated: 64 KiB a token of the largest batch.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks import report
from benchmarks.texts import folder_of

_BUDGET_KIB: Final = 64  # a token of the largest batch

_CHILD: Final = """
import json, resource, sys
from pathlib import Path
import numpy as np
import psutil
import torch
from anydim.config import EngineSettings, ModelSettings
from anydim.engine.load import load_engine
from anydim.models.card import read_card
from anydim.types import Item

def resident():
    return psutil.Process().memory_info().rss

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

folder, dtype, batch = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
card = read_card(folder)
torch.nn.functional.linear(torch.ones(64, 64), torch.ones(64, 64))
before = resident()
settings = EngineSettings(device="cpu", max_batch_tokens=batch, max_queue_tokens=1 << 40)
engine, started = load_engine(card, ModelSettings(dtype=dtype), settings, False)
loaded, peak_loading = resident(), peak()
draw = np.random.default_rng()
longest = min(card.max_tokens, batch)
for length in (longest, 16, longest // 2, longest):
    items = [Item(draw.integers(5, 1000, length, dtype=np.int32), card.width) for _ in range(4 * batch // length)]
    engine.submit(items).result()
weights = sum(parameter.nbytes for parameter in engine._loop._runner._forward.model.parameters())
print(json.dumps(dict(weights=weights, before=before, loaded=loaded, peak_loading=peak_loading, peak=peak())))
"""


def measure(folder: Path, dtype: str, batch: int) -> dict[str, Any]:
    """One row, in MiB."""
    output = subprocess.run(
        [sys.executable, "-c", _CHILD, str(folder), dtype, str(batch)], check=True, capture_output=True, text=True
    ).stdout
    found = {key: value / 2**20 for key, value in json.loads(output.splitlines()[-1]).items()}
    taken = found["peak"] - found["before"]
    return {
        "dtype": dtype,
        "weights_mib": found["weights"],
        "libraries_mib": found["before"],
        "peak_loading_mib": found["peak_loading"] - found["before"],
        "peak_mib": taken,
        "bar_mib": 1.2 * found["weights"] + batch * _BUDGET_KIB / 1024,
    }


def main() -> None:
    """Parse the command line, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="starter", help="minilm, starter or a folder")
    parser.add_argument("--dtype", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, default=2048, help="most tokens in one forward")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = [measure(folder_of(options.model), dtype, options.batch) for dtype in options.dtype]
    report.publish(f"memory-{options.model}", rows, options.out)


if __name__ == "__main__":
    main()

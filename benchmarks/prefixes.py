"""What are shared prefixes worth? The engine with and without them, in turn, on the same texts.

Run: python -m benchmarks.prefixes --shape 4b [--cases 512x80+32 50x100+128 ...] [--out FILE]

Cases: N x P + D, N texts of D tokens behind the same P. Every pass draws fresh random ids, prefixes included, for both
engines; seconds are medians of the passes. The arithmetic gain is (P + D) / (D + P / N), the tokens without and with
sharing. `cosine` is the least between the two vectors of a text; `unshared_halves_cosine` the least between two vectors
of the engine that shares nothing, of the whole batch and of its halves: what rounding alone does. `search` rows time
the look for prefixes alone, on the host. It knows engines, no HTTP.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np

from anydim.config import EngineSettings, ModelSettings
from anydim.engine.engine import Engine
from anydim.engine.load import load_engine
from anydim.engine.packing import pack
from anydim.engine.prefixes import find_prefixes
from anydim.models.card import ModelCard, read_card
from anydim.types import Float32Array, Item
from benchmarks import report, shapes

CASES: Final = ("512x80+32", "512x80+128", "50x100+128", "50x100+256", "50x100+512")
SEARCHES: Final = ("2048x0+32", "2048x16+32", "2048x16+512", "2048x80+32")
_SEARCH_RUNS: Final = 20


def sizes(case: str) -> tuple[int, int, int]:
    """Texts, tokens of their prefix and of what each has of its own."""
    count, tokens = case.split("x")
    prefix, own = tokens.split("+")
    return int(count), int(prefix), int(own)


def fresh_items(case: str, vocabulary: int, dim: int) -> list[Item]:
    """Random texts behind a random prefix."""
    count, prefix, own = sizes(case)
    draw = np.random.default_rng()
    shared = draw.integers(0, vocabulary, prefix, dtype=np.int32)
    owns = draw.integers(0, vocabulary, (count, own), dtype=np.int32)
    return [Item(np.concatenate([shared, ids]), dim) for ids in owns]


def timed(engine: Engine, items: list[Item]) -> tuple[float, Float32Array]:
    """Seconds until the vectors lie in host memory, and the vectors."""
    began = time.perf_counter()
    outputs = engine.submit(items).result()
    seconds = time.perf_counter() - began
    assert all(output.error is None for output in outputs), "a failed text is no result"
    return seconds, np.stack([output.values for output in outputs]).astype(np.float32)


def compare(case: str, sharing: Engine, unshared: Engine, card: ModelCard, passes: int) -> dict[str, Any]:
    """One case: both engines in turn, after a pass that is not counted."""
    seconds: tuple[list[float], list[float]] = ([], [])
    cosine = 1.0
    for _ in range(passes + 1):
        items = fresh_items(case, card.vocab_size, card.width)
        (shared_s, ours_BD), (unshared_s, wanted_BD) = timed(sharing, items), timed(unshared, items)
        seconds[0].append(shared_s)
        seconds[1].append(unshared_s)
        cosine = min(cosine, float((ours_BD * wanted_BD).sum(axis=1).min()))
    halves_BD = np.concatenate(
        [timed(unshared, half)[1] for half in (items[: len(items) // 2], items[len(items) // 2 :])]
    )
    shared_s, unshared_s = (statistics.median(part[1:]) for part in seconds)
    count, prefix, own = sizes(case)
    arithmetic, gain = (prefix + own) / (own + prefix / count), unshared_s / shared_s
    return {
        "case": case,
        "unshared_ms": 1e3 * unshared_s,
        "shared_ms": 1e3 * shared_s,
        "texts_per_s": count / shared_s,
        "arithmetic_gain": arithmetic,
        "gain": gain,
        "share_of_arithmetic": gain / arithmetic,
        "cosine": cosine,
        "unshared_halves_cosine": float((halves_BD * wanted_BD).sum(axis=1).min()),
    }


def search(case: str, vocabulary: int) -> dict[str, Any]:
    """How long the host looks for prefixes in a batch, whether there are any or not."""
    batch = pack(fresh_items(case, vocabulary, 1))
    milliseconds = []
    for _ in range(_SEARCH_RUNS):
        began = time.perf_counter()
        find_prefixes(batch.ids_T, batch.cu_seqlens_C)
        milliseconds.append(1e3 * (time.perf_counter() - began))
    return {"case": f"search {case}", "search_ms": statistics.median(milliseconds)}


def rows_of(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Load both engines, then measure."""
    card = read_card(folder)
    model = ModelSettings(model=str(folder), load_format="dummy", dtype=options.dtype)

    def load(share: bool) -> Engine:
        settings = EngineSettings(
            device=options.device,
            max_batch_tokens=options.max_batch_tokens,
            max_queue_tokens=1 << 40,
            share_prefixes=share,
        )
        return load_engine(card, model, settings, show_progress=True)[0]

    with ExitStack() as stack:
        sharing, unshared = (stack.enter_context(load(share)) for share in (True, False))
        gc.collect()
        gc.freeze()  # as the server's engine process does
        rows = measured(options.cases, lambda case: compare(case, sharing, unshared, card, options.passes))
    return rows + measured(options.searches, lambda case: search(case, card.vocab_size))


def measured(cases: Sequence[str], measure: Callable[[str], dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a case, printed as it comes."""
    rows = []
    for case in cases:
        rows.append(measure(case))
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Parse the command line, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=shapes.NAMES, default="4b")
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    parser.add_argument("--searches", nargs="*", default=list(SEARCHES))
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--max-batch-tokens", type=int)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = rows_of(options, shapes.write(options.shape, Path(folder)))
    report.publish(f"prefixes-{options.shape}-{options.dtype}", rows, options.out)


if __name__ == "__main__":
    main()

"""How fast is the engine itself? Token ids in, vectors in host memory out, random weights, against transformers.

Run: python -m benchmarks.offline --shape 4b [--cases 2048x32 mixed ...] [--rival] [--plain attend ...] [--out FILE]

Cases: N x L token batches, `mixed` (1024 lengths drawn log-normally, cut to 8..4096), `1x32768`, and single texts of
32 and 512 tokens (p50 and p99 of 200). Each pass draws fresh random ids; throughput is the median of 3 passes.
The rival runs transformers' own forward on the same shape in padded batches of equal length. It knows engines, no HTTP.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from anydim.config import EngineSettings, ModelSettings
from anydim.engine.engine import Engine
from anydim.engine.load import load_engine
from anydim.models.card import read_card
from anydim.types import Item
from benchmarks import report, shapes

BATCHES: Final = ("2048x32", "1024x128", "512x512", "64x4096", "mixed", "1x32768")
SINGLES: Final = ("single32", "single512")
_PASSES: Final = 3
_SINGLE_RUNS: Final = 200
_RIVAL_TOKENS: Final = 16384


def lengths_of(case: str) -> list[int]:
    """Token counts of the texts of a case."""
    if case == "mixed":
        draw = random.Random(7)
        return [min(max(int(draw.lognormvariate(5, 1)), 8), 4096) for _ in range(1024)]
    count, length = case.split("x")
    return [int(length)] * int(count)


def fresh_items(lengths: Sequence[int], vocabulary: int, dims: Sequence[int]) -> list[Item]:
    """Random ids, never the same twice; dimensions in turn."""
    draw = np.random.default_rng()
    return [
        Item(draw.integers(0, vocabulary, length, dtype=np.int32), dims[place % len(dims)])
        for place, length in enumerate(lengths)
    ]


def throughput(
    run: Callable[[list[Item]], None], lengths: Sequence[int], vocabulary: int, dims: Sequence[int]
) -> float:
    """Tokens a second, the median of passes over fresh ids, after one pass that is not counted."""
    seconds = []
    for _ in range(_PASSES + 1):
        items = fresh_items(lengths, vocabulary, dims)
        began = time.perf_counter()
        run(items)
        seconds.append(time.perf_counter() - began)
    return sum(lengths) / statistics.median(seconds[1:])


def latency(run: Callable[[list[Item]], None], length: int, vocabulary: int, dim: int) -> tuple[float, float]:
    """p50 and p99 in milliseconds of one text at a time."""
    milliseconds = []
    for _ in range(_SINGLE_RUNS + 10):
        items = fresh_items([length], vocabulary, [dim])
        began = time.perf_counter()
        run(items)
        milliseconds.append(1e3 * (time.perf_counter() - began))
    ordered = sorted(milliseconds[10:])
    return ordered[len(ordered) // 2], ordered[int(0.99 * len(ordered))]


def measure(
    run: Callable[[list[Item]], None], cases: Sequence[str], name: str, width: int, vocabulary: int
) -> list[dict[str, Any]]:
    """One row a case."""
    rows: list[dict[str, Any]] = []
    for case in cases:
        row: dict[str, Any] = {"engine": name, "case": case}
        if case in SINGLES:
            row["p50_ms"], row["p99_ms"] = latency(run, int(case.removeprefix("single")), vocabulary, width)
        else:
            dims = [32, 64, 1024, width] if case == "mixed" else [width]
            row["tokens_per_s"] = throughput(run, lengths_of(case), vocabulary, dims)
        print(row, flush=True)
        rows.append(row)
    return rows


def ours(engine: Engine) -> Callable[[list[Item]], None]:
    """Through the engine's own queue, as every request goes."""

    def run(items: list[Item]) -> None:
        outputs = engine.submit(items).result()
        assert all(output.error is None for output in outputs), "a failed text is no result"

    return run


def transformers_rival(folder: Path, device: torch.device, dtype: torch.dtype) -> Callable[[list[Item]], None]:
    """transformers' forward, last token pooled, batches of neighbours in length up to 16384 tokens."""
    from transformers import AutoConfig, AutoModel

    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = AutoModel.from_config(AutoConfig.from_pretrained(folder), attn_implementation="sdpa").eval()  # type: ignore[no-untyped-call]
    torch.set_default_dtype(torch.float32)

    @torch.inference_mode()
    def run(items: list[Item]) -> None:
        ordered = sorted(items, key=lambda item: len(item.ids))
        vectors = []
        while ordered:
            count = max(1, min(len(ordered), _RIVAL_TOKENS // len(ordered[-1].ids)))
            part, ordered = ordered[-count:], ordered[:-count]
            longest = len(part[-1].ids)
            ids = torch.zeros(count, longest, dtype=torch.long)
            mask = torch.zeros(count, longest, dtype=torch.long)
            for place, item in enumerate(part):  # left padding, as the model's card says
                ids[place, longest - len(item.ids) :] = torch.from_numpy(item.ids)
                mask[place, longest - len(item.ids) :] = 1
            needed = None if bool(mask.all()) else mask.to(device)
            hidden = model(input_ids=ids.to(device), attention_mask=needed, use_cache=False).last_hidden_state
            vectors.append(torch.nn.functional.normalize(hidden[:, -1].float()))
        [part.cpu() for part in vectors]

    return run


def main() -> None:
    """Parse the command line, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=shapes.NAMES, default="4b")
    parser.add_argument("--cases", nargs="*", default=[*BATCHES, *SINGLES])
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--max-batch-tokens", type=int)
    parser.add_argument("--plain", nargs="*", default=[], help="kernels to replace by their torch twin")
    parser.add_argument("--no-graphs", action="store_true")
    parser.add_argument("--rival", action="store_true", help="measure transformers too")
    parser.add_argument("--rival-cases", nargs="*")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        publish(options, shapes.write(options.shape, Path(folder)))


def publish(options: argparse.Namespace, folder: Path) -> None:
    """Measure ours, then the rival on the freed device."""
    card = read_card(folder)
    settings = EngineSettings(
        device=options.device,
        max_batch_tokens=options.max_batch_tokens,
        max_queue_tokens=1 << 40,
        plain_ops=tuple(options.plain),
        cuda_graphs=not options.no_graphs,
    )
    model = ModelSettings(model=str(folder), load_format="dummy", dtype=options.dtype)
    engine, started = load_engine(card, model, settings, show_progress=True)
    rows: list[dict[str, Any]] = [
        {"engine": "anydim", "case": "start", "weights_s": started.weights_seconds, "warmup_s": started.warmup_seconds}
    ]
    print(rows, flush=True)
    gc.collect()
    gc.freeze()  # as the server's engine process does
    with engine:
        rows += measure(ours(engine), options.cases, "anydim", card.width, card.vocab_size)
    if torch.cuda.is_available():
        rows.append({"engine": "anydim", "case": "memory", "peak_gib": torch.cuda.max_memory_allocated() / 2**30})
    if options.rival:
        del engine
        gc.collect()
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        run = transformers_rival(folder, device, getattr(torch, options.dtype))
        cases = options.rival_cases or [case for case in options.cases if case != "1x32768"]
        rows += measure(run, cases, "transformers", card.width, card.vocab_size)
    for row in rows:
        if "tokens_per_s" in row:
            row["tflops_linear"] = row["tokens_per_s"] * shapes.flops_per_token(options.shape) / 1e12
    report.publish(f"offline-{options.shape}-{options.dtype}", rows, options.out)


if __name__ == "__main__":
    main()

"""What do two GPUs give? Several engines (--dp) and one model on several GPUs (--tp), against one engine on one GPU.

Run: python -m benchmarks.parallel --shape 4b --out benchmarks/results [--parts one dp tp tp-graphs float32 kill]
     [--count 2] [--seconds 8] [--quantization fp8]

Random weights, token ids in, vectors in this process out: through the processes, the dispatch and the sockets of a
server, without HTTP. Each part starts what it measures and ends it.

- vectors: texts of 1 to 8192 tokens, the same ones for every part, against one engine's: the least cosine, the largest
  difference of a component. With the part float32 also each part's distance (1 - cosine) to that.
- latency: one text of 32, 512 and 8192 tokens at a time, p50 and p99.
- throughput: clients that send 16 texts of 512 tokens each, and wait, and send again, for a while.
- kill: one rank dies under load. Until when were all answered and the engine told not ready, and why; when was it back?

A part that fails leaves a row with its reason, and the others go on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import psutil
from numpy.typing import NDArray

from anydim.config import Settings
from anydim.engine.crew import Crew
from anydim.engine.handle import EngineHandle
from anydim.errors import AnydimError, Unavailable
from anydim.models.card import ModelCard, read_card
from anydim.types import Item
from benchmarks import ours, report, shapes

Row = dict[str, Any]
Vectors = NDArray[np.float64]

PARTS: Final = ("one", "dp", "tp", "tp-graphs", "float32", "kill")
_USUAL: Final = ("one", "dp", "tp", "tp-graphs")
_START_SECONDS: Final = 180.0
_LENGTHS: Final = (1, 2, 7, 31, 64, 65, 130, 500, 512, 1000, 2047, 8192)
_SINGLES: Final = MappingProxyType({32: 60, 512: 60, 8192: 15})
_CLIENTS: Final = 32
_TEXTS, _TOKENS = 16, 512
_WARM_SECONDS: Final = 2.0


def changes_of(part: str, count: int) -> dict[str, Any]:
    """The settings that make a part."""
    if part == "dp":
        return {"dp": count}
    if part == "float32":
        return {"dtype": "float32", "quantization": "none", "cuda_graphs": False, "max_batch_tokens": 8192}
    if part.startswith("tp") or part == "kill":
        return {"tp": count, "tp_cuda_graphs": part != "tp"}
    return {}


@contextlib.asynccontextmanager
async def running(card: ModelCard, settings: Settings, rows: list[Row], part: str) -> AsyncIterator[EngineHandle]:
    """The engines of a part, ready; how long their start took becomes a row."""
    crew = Crew(card, settings.model, settings.engine, show_progress=False)
    began = time.perf_counter()
    try:
        await crew.start()
        started = await asyncio.wait_for(crew.wait_ready(), _START_SECONDS)
        took = {
            "ready_s": time.perf_counter() - began,
            "device_s": started.device_seconds,
            "weights_s": started.weights_seconds,
        }
        memory = {"weights_gib": started.weights_bytes / 2**30, "batch_tokens": started.batch_tokens}
        rows.append({"part": part, "case": "start", "device": started.device, **took, **memory})
        yield crew.handle
    finally:
        await crew.stop()


def fixed_items(card: ModelCard, longest: int) -> list[Item]:
    """The texts that every part gets."""
    draw = np.random.default_rng(11)
    lengths = [min(length, longest) for length in _LENGTHS]
    return [Item(draw.integers(0, card.vocab_size, length, dtype=np.int32), card.width) for length in lengths]


def fresh(card: ModelCard, count: int, length: int) -> list[Item]:
    """New random texts."""
    draw = np.random.default_rng()
    return [Item(draw.integers(0, card.vocab_size, length, dtype=np.int32), card.width) for _ in range(count)]


async def vectors_of(handle: EngineHandle, items: list[Item]) -> Vectors:
    """The vectors of the fixed texts: all together, then each alone; what differs between the two is a defect."""
    together = np.stack([output.values for output in await handle.run(items)]).astype(np.float64)
    alone = np.stack([(await handle.run([item]))[0].values for item in items]).astype(np.float64)
    assert float((together * alone).sum(1).min()) > 0.999, "a text's vector depends on its batch"
    return together


async def latency(handle: EngineHandle, card: ModelCard, length: int, runs: int) -> Row:
    """One text at a time."""
    taken = []
    for run in range(runs + 5):
        items = fresh(card, 1, length)
        began = time.perf_counter()
        await handle.run(items)
        if run >= 5:
            taken.append(1000 * (time.perf_counter() - began))
    return {"p50_ms": statistics.median(taken), "p99_ms": sorted(taken)[int(0.99 * len(taken))]}


async def throughput(handle: EngineHandle, card: ModelCard, seconds: float) -> Row:
    """Clients that each wait for their answer before they ask again."""
    requests = [fresh(card, _TEXTS, _TOKENS) for _ in range(4 * _CLIENTS)]
    answered: list[float] = []
    begin = time.perf_counter() + _WARM_SECONDS
    end = begin + seconds

    async def client(place: int) -> None:
        turn = place
        while time.perf_counter() < end:
            await handle.run(requests[turn % len(requests)])
            answered.append(time.perf_counter())
            turn += _CLIENTS

    await asyncio.gather(*(client(place) for place in range(_CLIENTS)))
    count = sum(begin <= when < end for when in answered)
    return {"tokens_per_s": count * _TEXTS * _TOKENS / seconds, "requests": count, "clients": _CLIENTS}


async def kill(handle: EngineHandle, card: ModelCard) -> Row:
    """One rank dies while there is work."""
    work = [asyncio.ensure_future(handle.run(fresh(card, _TEXTS, _TOKENS))) for _ in range(8)]
    await asyncio.sleep(0.2)
    family = psutil.Process().children(recursive=True)
    rank = next(each for each in family if "anydim.engine.follower" in each.cmdline())
    began = time.perf_counter()
    rank.send_signal(signal.SIGKILL)
    ended = await asyncio.wait_for(asyncio.gather(*work, return_exceptions=True), _START_SECONDS)
    told = time.perf_counter() - began
    while handle.health().ready:
        await asyncio.sleep(0.01)
    unready, reason = time.perf_counter() - began, handle.health().reason
    while not handle.health().ready:
        await asyncio.sleep(0.05)
        assert time.perf_counter() - began < _START_SECONDS, f"it did not come back: {handle.health().reason}"
    back = time.perf_counter() - began
    assert (await handle.run(fresh(card, 1, 32)))[0].error is None, "it is back and answers"
    lost = sum(isinstance(one, Unavailable) for one in ended)
    times = {"answered_s": told, "not_ready_s": unready, "ready_again_s": back}
    return {**times, "answered_503": lost, "of": len(ended), "reason": reason}


async def measure(
    part: str, card: ModelCard, settings: Settings, options: argparse.Namespace, rows: list[Row]
) -> Vectors | None:
    """Everything about one part; its vectors."""
    longest = settings.model.max_input_tokens or card.max_tokens
    async with running(card, settings, rows, part) as handle:
        if part == "kill":
            rows.append({"part": part, "case": "one rank dies", **await kill(handle, card)})
            return None
        vectors = await vectors_of(handle, fixed_items(card, longest))
        if part == "float32":
            return vectors
        for length, runs in _SINGLES.items() if part != "dp" else ():
            if length <= longest:
                rows.append({"part": part, "case": f"single{length}", **await latency(handle, card, length, runs)})
        rows.append({"part": part, "case": f"{_TEXTS}x{_TOKENS}", **await throughput(handle, card, options.seconds)})
    return vectors


def compared(found: Mapping[str, Vectors]) -> list[Row]:
    """Each part's vectors against one engine's, and all against float32 where that ran."""
    rows: list[Row] = []
    for part, vectors in found.items():
        row: Row = {"part": part, "case": "vectors", "texts": len(vectors)}
        if "one" in found and part not in ("one", "float32"):
            row["least_cosine"] = float((vectors * found["one"]).sum(1).min())
            row["largest_difference"] = float(np.abs(vectors - found["one"]).max())
        if "float32" in found and part != "float32":
            row["mean_distance_to_float32"] = float(1 - (vectors * found["float32"]).sum(1).mean())
        rows.append(row)
    return rows


def ratios(rows: list[Row]) -> None:
    """How each figure stands to one engine's: throughput over it, latency below it."""
    one = {row["case"]: row for row in rows if row["part"] == "one"}
    for row in rows:
        base = one.get(row["case"], {})
        if row["part"] != "one" and "tokens_per_s" in row and "tokens_per_s" in base:
            row["times_one"] = row["tokens_per_s"] / base["tokens_per_s"]
        if row["part"] != "one" and "p50_ms" in row and "p50_ms" in base:
            row["times_faster"] = base["p50_ms"] / row["p50_ms"]


def main() -> None:
    """Parse the command line, measure part by part, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ours.add_flags(parser)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(_USUAL))
    parser.add_argument("--count", type=int, default=2, help="GPUs of dp and tp")
    parser.add_argument("--seconds", type=float, default=8, help="of each throughput")
    options = parser.parse_args()
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")  # sums without multicast, which not every machine may use
    rows: list[Row] = []
    found: dict[str, Vectors] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = shapes.write(options.shape, Path(scratch))
        card = read_card(folder)
        for part in options.parts:
            began = time.perf_counter()
            settings = ours.settings_of(options, folder, **changes_of(part, options.count))
            try:
                vectors = asyncio.run(measure(part, card, settings, options, rows))
            except (AnydimError, TimeoutError, AssertionError, StopIteration) as error:
                rows.append({"part": part, "case": "failed", "why": f"{type(error).__name__}: {error}"})
            else:
                if vectors is not None:
                    found[part] = vectors
            print(*(row for row in rows if row["part"] == part), sep="\n", flush=True)
            print(f"{part}: {time.perf_counter() - began:.0f} s", flush=True)
    rows += compared(found)
    ratios(rows)
    report.publish(f"parallel-{options.shape}-{ours.precision_of(options)}-{options.count}", rows, options.out)


if __name__ == "__main__":
    main()

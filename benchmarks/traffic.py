"""Traffic for benchmarks: requests over keep-alive connections, at a steady rate or as fast as answers come.

Not a script. It knows HTTP/1.1 on loopback and nothing of what is asked. Latencies count from when a request was due,
not from when a busy client got round to it.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

_LIMIT: Final = 1 << 26
_MOST_CONNECTIONS: Final = 1000

Draw = Callable[[], bytes]


@dataclass
class Outcome:
    """What became of requests: statuses, and seconds and tokens of those that were answered with 200."""

    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    refused_seconds: list[float] = field(default_factory=list)
    retry_after: list[float] = field(default_factory=list)
    tokens: int = 0
    took: float = 0.0

    def add(self, status: int, head: bytes, body: bytes, seconds: float) -> None:
        """Count one answer."""
        self.statuses[status] += 1
        if status == 200:
            self.seconds.append(seconds)
            self.tokens += _tokens(body)
        else:
            self.refused_seconds.append(seconds)
            self.retry_after += [float(value) for value in _header(head, b"retry-after")]

    def join(self, other: Outcome) -> None:
        """Count the answers of another stretch of time as well."""
        self.statuses += other.statuses
        self.seconds += other.seconds
        self.refused_seconds += other.refused_seconds
        self.retry_after += other.retry_after
        self.tokens += other.tokens
        self.took += other.took

    def quantile(self, part: float) -> float:
        """Milliseconds that this part of the answers stayed below."""
        return _quantile(self.seconds, part)

    def row(self) -> dict[str, Any]:
        """The usual columns."""
        return {
            "answered": self.statuses[200],
            "requests_per_s": self.statuses[200] / self.took,
            "tokens_per_s": self.tokens / self.took,
            "p50_ms": self.quantile(0.5),
            "p99_ms": self.quantile(0.99),
        }


def request(texts: Sequence[str], **fields: Any) -> bytes:
    """One request for vectors as base64; long texts are cut."""
    body = json.dumps({"input": list(texts), "encoding_format": "base64", "truncate": "end", **fields}).encode()
    lines = ["POST /v1/embeddings HTTP/1.1", "host: localhost", "content-type: application/json"]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


async def saturate(port: int, connections: int, draws: Sequence[bytes], seconds: float) -> Outcome:
    """Every connection sends one request after another, from ``draws`` in turn, until the time is over."""
    _settle()
    outcome, turn, end = Outcome(), itertools.cycle(draws), time.perf_counter() + seconds

    async def client() -> None:
        async with _Connection(port) as line:
            while time.perf_counter() < end:
                await line.ask(next(turn), time.perf_counter(), outcome)

    await _timed(outcome, [client() for _ in range(connections)])
    return outcome


async def steady(port: int, rate: float, draws: Sequence[bytes], seconds: float) -> Outcome:
    """``rate`` requests a second, whatever becomes of them; connections are opened as they are needed."""
    _settle()
    outcome, idle = Outcome(), asyncio.LifoQueue[_Connection]()
    opened = 0

    async def one(body: bytes, due: float) -> None:
        nonlocal opened
        if idle.empty() and opened < _MOST_CONNECTIONS:
            opened += 1
            line = await _Connection(port).__aenter__()
        else:
            line = await idle.get()
        await line.ask(body, due, outcome)
        idle.put_nowait(line)

    async def all_of_them() -> None:
        began = time.perf_counter()
        tasks = []
        for number, body in zip(range(int(rate * seconds)), itertools.cycle(draws), strict=False):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(one(body, due)))
        await asyncio.gather(*tasks)

    await _timed(outcome, [all_of_them()])
    while not idle.empty():
        await idle.get_nowait().__aexit__()
    return outcome


class _Connection:
    """One keep-alive connection."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> _Connection:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=_LIMIT)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._writer.close()

    async def ask(self, body: bytes, due: float, outcome: Outcome) -> None:
        """Send, read the whole answer, count it."""
        self._writer.write(body)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(next(_header(head, b"content-length")))
        answer = await self._reader.readexactly(length)
        outcome.add(int(head.split(b" ", 2)[1]), head, answer, time.perf_counter() - due)


def _settle() -> None:
    """What the client holds by now is not looked through while it measures."""
    gc.collect()
    gc.freeze()


async def _timed(outcome: Outcome, work: Sequence[Any]) -> None:
    began = time.perf_counter()
    await asyncio.gather(*work)
    outcome.took = time.perf_counter() - began


def _header(head: bytes, name: bytes) -> Iterator[bytes]:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(name + b":"):
            yield line.split(b":", 1)[1].strip()


def _tokens(body: bytes) -> int:
    """The tokens of an answer, from its end, so that vectors need not be parsed."""
    usage = json.loads(b"{" + body[body.rindex(b'"usage"') :])
    return int(usage["usage"]["total_tokens"])


def _quantile(seconds: Sequence[float], part: float) -> float:
    ordered = sorted(seconds)
    return 1e3 * ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")

"""Is every answer right while everything goes wrong? Honest clients, a checker, and faults that are mixed at random.

Run: python -m benchmarks.chaos [--seconds 300] [--clients 6] [--seed 1] [--http-workers 1] [--out FILE]

Starts `anydim serve` with all-MiniLM-L6-v2 in float32. Honest clients send texts whose vectors sentence-transformers
has computed before, with random dimensions, and compare every 200 with them. Meanwhile the engine is killed and
stopped, the queue is flooded, clients hang up in the middle, send junk, nothing, half a request or a body too large,
and the keys are changed. At the end SIGTERM comes in the middle of the work. `wrong` counts answers that differ from
the reference by more than 1e-4, `lost` honest requests that got no answer at all; both must be 0, and so must be the
exit code.

Legend: B texts, D components.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import random
import signal
import socket
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks import report
from benchmarks.client import Line, Served, served
from benchmarks.corpus import Corpus
from benchmarks.texts import folder_of

Float32Array = NDArray[np.float32]

Fault = Callable[[], Awaitable[None]]

_FATAL: Final = 0.08  # share of the faults that end or stop the engine
_TEXTS: Final = 300
_TOLERANCE: Final = 1e-4
_KEY: Final = "Authorization: Bearer honest"
_PATH: Final = "/v1/embeddings"
_FLAGS: Final = (
    *("--dtype", "float32", "--threads", "1", "--watchdog-timeout", "5", "--drain-timeout", "20"),
    *("--max-queue-tokens", "30000", "--header-timeout", "2", "--body-timeout", "2", "--max-body-bytes", "2000000"),
)


class Checker:
    """Honest clients and what became of their requests."""

    def __init__(self, port: int, texts: Sequence[str], reference_BD: Float32Array) -> None:
        self._port = port
        self._texts = texts
        self._reference_BD = reference_BD
        self.stopping = False
        self.statuses: Counter[int] = Counter()
        self.checked = 0
        self.wrong = 0
        self.lost = 0
        self.worst = 0.0

    async def client(self, seed: int) -> None:
        """Ask, compare, ask again, until the server stops."""
        choose, line = random.Random(seed), Line(self._port)
        while not self.stopping:
            places = [choose.randrange(_TEXTS) for _ in range(choose.choice([1, 1, 3, 20]))]
            dim = choose.choice([*range(32, self._reference_BD.shape[1], 32), self._reference_BD.shape[1]])
            body = {"input": [self._texts[place] for place in places], "dimensions": dim, "encoding_format": "base64"}
            try:
                status, content = await line.post(_PATH, body, [_KEY])
            except (OSError, asyncio.IncompleteReadError):
                line = Line(self._port)
                self.lost += 1
                continue
            self.statuses[status] += 1
            if status == 200:
                self._check(places, dim, content)
            else:
                await asyncio.sleep(0.05)
        line.close()

    def _check(self, places: Sequence[int], dim: int, content: bytes) -> None:
        rows = json.loads(content)["data"]
        cut_BD = self._reference_BD[list(places), :dim]
        wanted_BD = cut_BD / np.linalg.norm(cut_BD, axis=1, keepdims=True)
        if len(rows) != len(places):
            self.wrong += 1
            return
        found_BD = np.array([np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in rows])
        apart = float(np.abs(found_BD - wanted_BD).max()) if found_BD.shape == wanted_BD.shape else np.inf
        self.checked += len(places)
        self.worst = max(self.worst, apart)
        self.wrong += not apart <= _TOLERANCE


class Faults:
    """Everything that goes wrong, one thing after another at random."""

    def __init__(self, server: Served, keys: Path, texts: Sequence[str], seed: int) -> None:
        self._server = server
        self._keys = keys
        self._texts = texts
        self._choose = random.Random(seed)
        self.counts: Counter[str] = Counter()

    async def run(self, end: float) -> None:
        """Go on until a time of the monotonic clock."""
        fatal: list[Fault] = [self.kill_engine, self.stop_engine]
        others: list[Fault] = [
            *(self.flood, self.hang_up, self.junk, self.say_nothing, self.send_half, self.send_too_much),
            *(self.change_keys, self.ask_without_key),
        ]
        while time.monotonic() < end:  # an engine needs some seconds to come back: give it time to be wrong in
            kind = self._choose.choice(fatal if self._choose.random() < _FATAL else others)
            self.counts[kind.__name__] += 1
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await kind()
            await asyncio.sleep(self._choose.uniform(0.1, 1.5))

    async def kill_engine(self) -> None:
        """SIGKILL, as the system does when memory runs out."""
        if engine := self._server.engine:
            engine.kill()

    async def stop_engine(self) -> None:
        """SIGSTOP for a while, now and then for longer than the watchdog waits."""
        if engine := self._server.engine:
            engine.suspend()
            await asyncio.sleep(self._choose.choice([0.2, 1, 8]))
            with contextlib.suppress(Exception):  # it may have been replaced meanwhile
                engine.resume()

    async def flood(self) -> None:
        """More at once than the queue takes."""
        body = {"input": [" ".join(self._choose.choices(self._texts, k=6)) for _ in range(60)], "truncate": "end"}
        lines = [Line(self._server.port) for _ in range(15)]
        await asyncio.gather(*(line.post(_PATH, body, [_KEY]) for line in lines), return_exceptions=True)
        for line in lines:
            line.close()

    async def hang_up(self) -> None:
        """Clients that leave while their texts wait or run."""
        for _ in range(10):
            body = json.dumps({"input": self._choose.choices(self._texts, k=30)}).encode()
            with self._connected(self._request(body)) as line:
                await asyncio.sleep(self._choose.uniform(0, 0.1))
                line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def junk(self) -> None:
        """Bytes that are no HTTP."""
        for _ in range(10):
            with self._connected(self._choose.randbytes(self._choose.randrange(1, 3000))):
                pass

    async def say_nothing(self) -> None:
        """Connections that stay silent until they are let go."""
        with contextlib.ExitStack() as stack:
            for _ in range(50):
                stack.enter_context(self._connected(b""))
            await asyncio.sleep(3)

    async def send_half(self) -> None:
        """Half a head, and half a body."""
        request = self._request(b'{"input": "half of a text"}')
        with self._connected(request[:40]), self._connected(request[:-9]):
            await asyncio.sleep(3)

    async def send_too_much(self) -> None:
        """A head and a body beyond the limits."""
        with self._connected(b"POST / HTTP/1.1\r\nX: " + b"a" * 100_000):
            pass
        await Line(self._server.port).post(_PATH, {"input": "a" * 2_100_000}, [_KEY])

    async def change_keys(self) -> None:
        """A file of keys with another beside the honest one, and SIGHUP."""
        self._keys.write_text(f"honest:honest\nother:{self._choose.random()}\n")
        self._server.process.send_signal(signal.SIGHUP)

    async def ask_without_key(self) -> None:
        """A stranger's request."""
        status, _ = await Line(self._server.port).post(_PATH, {"input": "a"})
        assert status in (401, 503), status

    def _request(self, body: bytes) -> bytes:
        head = f"POST {_PATH} HTTP/1.1\r\nHost: x\r\n{_KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    def _connected(self, data: bytes) -> contextlib.closing[socket.socket]:
        line = socket.create_connection(("127.0.0.1", self._server.port), 10)
        line.sendall(data)
        return contextlib.closing(line)


async def run(server: Served, checker: Checker, faults: Faults, clients: int, seconds: float) -> int:
    """Mix it all, then end the server in the middle of the work; its exit code."""
    asking = [asyncio.create_task(checker.client(seed)) for seed in range(clients)]
    await faults.run(time.monotonic() + seconds)
    await asyncio.to_thread(server.wait_ready, 60)
    await asyncio.sleep(2)
    checker.stopping = True  # nobody asks from now on; those who have asked must be answered
    server.process.send_signal(signal.SIGTERM)
    await asyncio.gather(*asking)
    return await asyncio.to_thread(server.process.wait, 60)


def main() -> None:
    """Parse the command line, make the reference, mix, publish; exit with 1 where an answer was wrong or lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--http-workers", type=int, default=1, help="front ends; their own death is no fault of this run"
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    folder, texts = folder_of("minilm"), Corpus("en", options.seed).lines(_TEXTS)
    reference_BD = _reference(folder, texts)
    with tempfile.TemporaryDirectory() as scratch:
        keys = Path(scratch) / "keys"
        keys.write_text("honest:honest\n")
        flags = [*_FLAGS, "--http-workers", str(options.http_workers), "--api-key-file", str(keys)]
        with served(str(folder), *flags) as server:
            checker = Checker(server.port, texts, reference_BD)
            faults = Faults(server, keys, texts, options.seed)
            code = asyncio.run(run(server, checker, faults, options.clients, options.seconds))
    unexpected = sum(count for status, count in checker.statuses.items() if status not in (200, 429, 503))
    row = {
        "seconds": options.seconds,
        "requests": sum(checker.statuses.values()),
        "statuses": " ".join(f"{status}:{count}" for status, count in sorted(checker.statuses.items())),
        "vectors_checked": checker.checked,
        "worst_difference": checker.worst,
        "wrong": checker.wrong,
        "lost": checker.lost,
        "unexpected": unexpected,
        "exit_code": code,
    }
    report.publish("chaos", [row, *({"fault": name, "times": n} for name, n in faults.counts.items())], options.out)
    raise SystemExit(bool(checker.wrong or checker.lost or unexpected or code))


def _reference(folder: Path, texts: Sequence[str]) -> Float32Array:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})
    vectors_BD: Float32Array = model.encode(list(texts), convert_to_numpy=True)
    return vectors_BD


if __name__ == "__main__":
    main()

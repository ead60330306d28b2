"""A small HTTP client for load: one keep-alive connection, requests as bytes, answers whole. And a server to load.

Not a script. It knows HTTP/1.1 as our server speaks it; it knows no routes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, Final

import psutil

_PATIENCE: Final = 600.0
_LONGEST: Final = 1 << 26


@dataclass(slots=True)
class Served:
    """A server of ours.

    Attributes:
        process: its front end, whose child is the engine.
        port: where it listens on 127.0.0.1.
        words: what it wrote on standard error.
    """

    process: subprocess.Popen[str]
    port: int
    words: list[str] = field(default_factory=list)

    @property
    def engine(self) -> psutil.Process | None:
        """The engine's process, or None where none runs."""
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self.process.pid).children():
                if "anydim.engine.worker" in child.cmdline():
                    return child
        return None

    def answers(self, path: str) -> int:
        """The status of a GET; 0 where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def wait_ready(self, seconds: float = _PATIENCE) -> None:
        """Wait until /ready says so."""
        end = time.monotonic() + seconds
        while self.answers("/ready") != 200:
            assert self.process.poll() is None, "the server ended:\n" + "\n".join(self.words[-20:])
            assert time.monotonic() < end, "the server did not become ready"
            time.sleep(0.1)


@contextlib.contextmanager
def served(*words: str) -> Iterator[Served]:
    """`anydim serve` with these words on a free port, ready; killed at the end if it still runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "anydim", "serve", *words, "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    server = Served(process, port)
    assert process.stderr is not None, "it is a pipe"
    reader = threading.Thread(target=_collect, args=(process.stderr, server.words), daemon=True)
    reader.start()
    try:
        server.wait_ready()
        yield server
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()


def _collect(stream: IO[str], words: list[str]) -> None:
    for line in stream:
        words.append(line.rstrip())


class Line:
    """One connection, opened anew where the server closed it between requests."""

    def __init__(self, port: int) -> None:
        """Connect to a port of this machine, when the first request comes."""
        self._port = port
        self._ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: Any, headers: Sequence[str] = ()) -> tuple[int, bytes]:
        """Status and body of one POST.

        Raises:
            OSError, asyncio.IncompleteReadError: the connection broke before the answer was whole.
        """
        data = json.dumps(body).encode()
        head = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", *headers, f"Content-Length: {len(data)}"]
        reader, writer = self._ends or await asyncio.open_connection("127.0.0.1", self._port, limit=_LONGEST)
        self._ends = None
        writer.write("\r\n".join([*head, "", ""]).encode() + data)
        answer = await reader.readuntil(b"\r\n\r\n")
        lines = answer.lower().split(b"\r\n")
        length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
        content = await reader.readexactly(length)
        if b"connection: close" in lines:
            writer.close()
        else:
            self._ends = reader, writer
        return int(answer.split(b" ", 2)[1]), content

    def close(self) -> None:
        """Hang up."""
        if self._ends is not None:
            self._ends[1].close()

"""A server process for tests: started on a free port, awaited, stopped. It knows the command line alone."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

_PATIENCE = 60.0
_UPTIME = "anydim_engine_uptime_seconds"


class ServerProcess:
    """A running `anydim serve`."""

    def __init__(
        self,
        *arguments: str,
        environment: dict[str, str] | None = None,
        module: str = "anydim",
        program: Path | None = None,
        cwd: Path | None = None,
        limits: dict[int, int] | None = None,
    ) -> None:
        start = [str(program)] if program else [sys.executable, "-m", module]
        command = [*start, *(["serve"] if module == "anydim" else []), "--port", "0", *arguments]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANYDIM_")}
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            preexec_fn=partial(_set_limits, limits) if limits else None,
            env=kept | {"ANYDIM_THREADS": "1"} | (environment or {}),
        )
        self._readers = [
            threading.Thread(target=self._collect, args=(stream,), daemon=True)
            for stream in (self.process.stdout, self.process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def _collect(self, stream: Any) -> None:
        for line in stream:
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        """Everything printed so far."""
        return "\n".join(self.lines)

    def line_with(self, text: str) -> str:
        """The first line that holds ``text``; waits for it."""
        self.until(lambda: any(text in line for line in self.lines) or self.process.poll() is not None)
        found = [line for line in self.lines if text in line]
        assert found, f"the server ended with {self.process.poll()}:\n{self.output}"
        return found[0]

    @property
    def address(self) -> str:
        """http://host:port, once it is ready."""
        return self.line_with("Server running on").rpartition("Server running on ")[2].rstrip('"}')

    def get(self, path: str) -> tuple[int, Any]:
        """Status and decoded body; status 0 where nobody answers."""
        return self.send(urllib.request.Request(self.address + path))

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """The same for a JSON body, or raw bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send(urllib.request.Request(self.address + path, data, {"Content-Type": "application/json"}))

    def send(self, request: urllib.request.Request) -> tuple[int, Any]:
        """Status and decoded body of any request."""
        try:
            with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")
        except OSError:
            return 0, None

    def metrics(self, key: str = "") -> dict[str, float]:
        """The lines of GET /metrics: name with labels -> value."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with urllib.request.urlopen(urllib.request.Request(self.address + "/metrics", headers=headers)) as answer:
            lines = [line for line in answer.read().decode().splitlines() if line and not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def settled_metrics(self) -> dict[str, float]:
        """The same once the engines' counts, which come four times a second, hold all that was answered before.

        For servers with one front end: each has the counts at a time of its own.
        """
        for _ in range(2):  # the first that comes may have been on its way
            self._wait_for_counts()
        return self.metrics()

    def _wait_for_counts(self) -> None:
        seen = self._uptimes()

        def is_newer() -> bool:
            now = self._uptimes()
            return now.keys() == seen.keys() and all(now[name] > seen[name] for name in seen)

        self.until(is_newer)

    def _uptimes(self) -> dict[str, float]:
        found: dict[str, float] = {}
        while not found:  # an engine that starts again has none
            found = {name: value for name, value in self.metrics().items() if name.startswith(_UPTIME)}
        return found

    def until(self, true: Callable[[], bool]) -> None:
        """Wait for something to become true."""
        deadline = time.monotonic() + _PATIENCE
        while not true():
            assert time.monotonic() < deadline, f"it did not happen within {_PATIENCE:.0f} seconds:\n{self.output}"
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(_PATIENCE)
        for reader in self._readers:
            reader.join(_PATIENCE)
        return code


def _set_limits(limits: dict[int, int]) -> None:
    for number, value in limits.items():
        resource.setrlimit(number, (value, value))


@contextlib.contextmanager
def serving(*arguments: str | Path, **options: Any) -> Iterator[ServerProcess]:
    """A server that is stopped at the end, whatever happens."""
    server = ServerProcess(*map(str, arguments), **options)
    try:
        yield server
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.stop()
        server.process.kill()

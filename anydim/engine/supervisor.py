"""Supervisor: starts the engine's process, watches it, and starts it again when it dies. Imports no torch.

It knows a process, a socket path and the restart policy; it knows no HTTP and no Items.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from anydim.config import EngineSettings, ModelSettings
from anydim.engine import wire
from anydim.engine.child import bound_product_caches, environment, read_report, tell
from anydim.engine.client import EngineClient
from anydim.errors import AnydimError, ComputeFailed, ConfigError
from anydim.models.card import ModelCard
from anydim.models.cost import costs

_LOG = logging.getLogger(__name__)
_LONGEST_PAUSE: Final = 30.0
_STEADY_SECONDS: Final = 60.0  # an engine that lived this long is restarted without a pause
_LOOK_SECONDS: Final = 0.25
_STOP_SECONDS: Final = 5.0
_PRODUCT_SHAPES: Final = 512
_LONGEST_SOCKET_PATH: Final = 103  # macOS; Linux allows 107


class Supervisor:
    """One engine process and the line to it."""

    def __init__(
        self,
        card: ModelCard,
        model: ModelSettings,
        engine: EngineSettings,
        show_progress: bool = True,
        log_json: bool = False,
        others: Sequence[tuple[ModelCard, ModelSettings]] = (),
        place: int = 0,
    ) -> None:
        """Prepare; nothing runs before ``start``.

        Args:
            card: the model.
            model: how it is served.
            engine: where it runs.
            show_progress: whether the process may draw bars on standard error.
            log_json: whether it logs as JSON lines.
            others: further models of the same process.
            place: which of the server's engines it is, from 0; it decides which devices it takes.

        Raises:
            ConfigError: the folder for temporary files has too long a name.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="anydim-"))
        self._socket = self._folder / "engine"
        if len(os.fsencode(self._socket)) > _LONGEST_SOCKET_PATH:
            self._folder.rmdir()
            raise ConfigError(
                f"the folder for temporary files has too long a name for a socket: set TMPDIR ({self._folder})"
            )
        self._client = EngineClient(self._socket, engine.watchdog_timeout, costs([card, *(each for each, _ in others)]))
        self._order = {
            "models": [(str(each.folder), each.name, how) for each, how in ((card, model), *others)],
            "socket": str(self._socket),
            "engine": engine,
            "show_progress": show_progress,
            "log_json": log_json,
            "place": place,
        }
        self._first: asyncio.Future[wire.Started] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stuck_after = engine.watchdog_timeout
        self._has_ranks = engine.tp > 1

    @property
    def handle(self) -> EngineClient:
        """The line to the engine; it outlives restarts."""
        return self._client

    @property
    def socket(self) -> Path:
        """Where the engine listens, for further lines to it."""
        return self._socket

    @property
    def pid(self) -> int | None:
        """The engine's process id, or None where none runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Start the process and keep it running from now on."""
        self._first = asyncio.get_running_loop().create_future()
        self._client.connect()
        self._tasks = [asyncio.create_task(self._keep_running()), asyncio.create_task(self._keep_moving())]

    async def wait_ready(self) -> wire.Started:
        """Wait for the first start.

        Raises:
            ConfigError: a setting does not fit the machine or the model.
            ModelError: the model's files are broken or not supported.
            ComputeFailed: the process died for another reason; its last words are on standard error.
        """
        assert self._first is not None, "wait_ready comes after start"
        started = await asyncio.shield(self._first)
        while not self._client.health().ready:  # the line opens a moment after the report
            await asyncio.sleep(0.01)
        return started

    async def stop(self) -> None:
        """End the process; who still waits is answered Unavailable."""
        try:
            for task in self._tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await self._client.close()
        finally:
            await self._end_process()
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _keep_running(self) -> None:
        pause = 0.0
        while True:
            began = time.monotonic()
            reason = await self._run_once()
            if time.monotonic() - began > _STEADY_SECONDS:
                pause = 0.0
            assert self._first is not None, "set before this task starts"
            if not self._first.done():
                self._first.set_exception(reason)
                return
            _LOG.error("%s; starting it again in %.0f s", reason.message, pause)
            self._client.explain(f"{reason.message}; it is being restarted")
            await asyncio.sleep(pause)
            pause = min(max(1.0, 2 * pause), _LONGEST_PAUSE)

    async def _keep_moving(self) -> None:
        """Kill an engine that is stuck: its waiters are answered at once, and another takes its place."""
        suspected = False  # one look may come before what the engine said while this process was held up
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            stuck, suspected = suspected and self._client.is_stuck, self._client.is_stuck
            if stuck and self._process is not None and self._process.returncode is None:
                reason = f"the engine made no progress for {self._stuck_after:.0f} seconds and is being restarted"
                _LOG.error("%s", reason)
                self._client.expect_end(reason)
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()
                suspected = False

    async def _run_once(self) -> AnydimError:
        """One life of the engine; why it ended."""
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # a model folder that happens to be the current one must not be importable
                "-m",
                "anydim.engine.worker",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C reaches the server alone, which drains first
                env=_worker_environment(),
            )
        except OSError as error:  # no memory, files or processes left for the moment
            return ComputeFailed(f"the engine's process could not be started ({error.strerror})")
        assert process.stdout is not None, "it is a pipe"
        tell(process, msgspec.json.encode(self._order) + b"\n")
        failure: AnydimError | None = None
        decoder = msgspec.json.Decoder(wire.Report)
        async for line in process.stdout:
            report = read_report(line, decoder)
            if isinstance(report, wire.Failed):
                failure = wire.rebuild(report.kind, report.message)
            elif report is not None and self._first is not None and not self._first.done():
                self._first.set_result(report)
        status = await process.wait()
        self._sweep(process.pid)
        return failure or ComputeFailed(f"the engine's process ended with status {status}")

    def _sweep(self, group: int) -> None:
        """End ranks of an engine that has ended, where one did not notice: a stopped process holds its device."""
        if self._has_ranks:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left
                os.killpg(group, signal.SIGKILL)

    async def _end_process(self) -> None:
        process = self._process
        if process is None or process.returncode is not None or process.stdin is None:
            return
        process.stdin.close()  # its word to go
        try:
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
        self._sweep(process.pid)


def _worker_environment() -> dict[str, str]:
    kept = environment()
    # The front end shares the cores: idle compute threads must sleep, not spin.
    kept.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    bound_product_caches(kept, _PRODUCT_SHAPES)
    return kept

"""Fronts: several front-end processes beside one engine. Starts them, watches them, starts them again when they die.

The listening sockets stay open here, so that a connection that meets a dead front end waits for its successor instead
of being refused. It knows processes and what they are told; it knows no HTTP and no engine. Imports no torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from pathlib import Path
from socket import socket
from typing import Final, Literal

import msgspec
from prometheus_client.multiprocess import mark_process_dead

from anydim.cli.front import LAST_SECONDS
from anydim.cli.front_process import READY, FrontOrder
from anydim.engine.child import environment, tell
from anydim.errors import ComputeFailed

_LOG = logging.getLogger(__name__)
_STEADY_SECONDS: Final = 10.0  # a front end that lived this long is started again at once, however often
_MOST_DEATHS: Final = 5  # in a row, each within that time
_PAUSE_SECONDS: Final = 0.5  # times the deaths in a row
_RETRY_SECONDS: Final = 1.0  # where the system starts no process
_STOP_SECONDS: Final = LAST_SECONDS + 2.0


class Fronts:
    """The front ends of one server."""

    def __init__(self, order: FrontOrder, listeners: Sequence[socket], drain_timeout: float) -> None:
        """Prepare one front end a listening socket.

        Args:
            order: what each is asked; its listener and its folder of metrics are filled in here.
            listeners: the sockets; where the system spreads connections by itself each front end has its own.
            drain_timeout: seconds that each gives the requests under way.
        """
        self._metrics = Path(tempfile.mkdtemp(prefix="anydim-metrics-"))
        self._order = order
        self._listeners = listeners
        self._drain_timeout = drain_timeout
        self._processes: dict[int, Process] = {}
        self._stopping = False

    def start(self) -> None:
        """Start them all and keep them running from now on."""
        loop = asyncio.get_running_loop()
        self._ready: list[asyncio.Future[None]] = [loop.create_future() for _ in self._listeners]
        self.failed: asyncio.Future[ComputeFailed] = loop.create_future()
        self._tasks = [asyncio.create_task(self._keep_running(place)) for place in range(len(self._listeners))]

    async def wait_ready(self) -> None:
        """Wait until each of them accepts connections and has a line to a warm engine."""
        await asyncio.gather(*self._ready)

    def tell(self, word: Literal["drain", "hurry", "reload"]) -> None:
        """Say a word to each of them."""
        self._stopping = self._stopping or word != "reload"
        for process in self._processes.values():
            tell(process, f"{word}\n".encode())

    async def drain(self) -> None:
        """Let each finish what it has under way, as long as the settings allow, and end."""
        self.tell("drain")
        await asyncio.wait(self._tasks, timeout=self._drain_timeout + _STOP_SECONDS)

    async def stop(self) -> None:
        """End those that still run."""
        self.tell("hurry")
        await asyncio.wait(self._tasks, timeout=_STOP_SECONDS)
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        shutil.rmtree(self._metrics, ignore_errors=True)

    async def _keep_running(self, place: int) -> None:
        deaths = 0
        while True:
            began = time.monotonic()
            try:
                status = await self._run_once(place)
            except OSError as error:
                if self._stopping:
                    return
                if not self._ready[place].done():
                    self._give_up(f"front end {place + 1} could not be started ({error.strerror})")
                    return
                _LOG.error("front end %d could not be started (%s); trying again", place + 1, error.strerror)
                await asyncio.sleep(_RETRY_SECONDS)  # no memory, files or processes left for the moment
                continue
            if self._stopping:
                return
            deaths = 1 if time.monotonic() - began > _STEADY_SECONDS else deaths + 1
            if deaths >= _MOST_DEATHS:
                self._give_up(
                    f"front end {place + 1} of {len(self._listeners)} ended {deaths} times within seconds of its start "
                    f"(status {status}); its last words stand above"
                )
                return
            _LOG.error("front end %d ended with status %d; starting it again", place + 1, status)
            await asyncio.sleep(_PAUSE_SECONDS * (deaths - 1))

    def _give_up(self, reason: str) -> None:
        if not self.failed.done():
            self.failed.set_result(ComputeFailed(reason))

    async def _run_once(self, place: int) -> int:
        """One life of a front end; its exit status.

        Raises:
            OSError: the system starts no process.
        """
        descriptor = self._listeners[place].fileno()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # a model folder that happens to be the current one must not be importable
            "-m",
            "anydim.cli.front_process",
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,  # Ctrl-C reaches the server alone, which says what is to be done
            pass_fds=(descriptor,),
            env=environment() | {"PROMETHEUS_MULTIPROC_DIR": str(self._metrics)},
        )
        assert process.stdout is not None, "it is a pipe"
        self._processes[place] = process
        order = msgspec.structs.replace(self._order, listener=descriptor, metrics=str(self._metrics))
        tell(process, msgspec.json.encode(order) + b"\n")
        if self._stopping:
            tell(process, b"hurry\n")
        async for line in process.stdout:
            if line.decode(errors="replace").strip() == READY and not self._ready[place].done():
                self._ready[place].set_result(None)
        status = await process.wait()
        mark_process_dead(process.pid, str(self._metrics))  # type: ignore[no-untyped-call]
        return status

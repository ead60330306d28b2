"""Front process: one of several front ends of a server, in a process of its own.

Run: by the server, as ``python -m anydim.cli.front_process`` with one JSON line on standard input, then one word a line
(``drain``, ``hurry``, ``reload``); it lives as long as that input stays open, so that it never outlives its server. It
says ``ready`` on standard output. Signals are the server's business: it passes on what they mean. Imports no torch.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from anydim.api.auth import KeyRing, SealedKeys
from anydim.api.models import Models
from anydim.cli.front import FrontEnd
from anydim.cli.served import read_cards, serve_models
from anydim.cli.signals import first_of
from anydim.config import Settings
from anydim.engine.client import EngineClient
from anydim.engine.event_loop import loop_factory
from anydim.engine.replicas import as_one
from anydim.errors import AnydimError
from anydim.logs import configure_logs
from anydim.models.cost import costs

READY: Final = "ready"
_LOOK_SECONDS: Final = 0.02


class FrontOrder(msgspec.Struct, kw_only=True):
    """What the server asks of a front end.

    Attributes:
        settings: all settings, without keys.
        models: the folder and the name of each model, in the order of the settings.
        engines: the path of each engine's socket.
        listener: the file descriptor of the listening socket.
        keys: the hashes of the keys, or None where the server is open.
        metrics: the folder in which all front ends count.
    """

    settings: Settings
    models: list[tuple[str, str]]
    engines: list[str]
    listener: int
    keys: SealedKeys | None
    metrics: str


def main() -> None:
    """Serve until standard input closes or says so."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print to standard output must not speak for us
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=FrontOrder)
    configure_logs(order.settings.server.log_json)
    try:
        models = serve_models(read_cards(order.models, order.settings), order.settings)
        keys = None if order.keys is None else KeyRing.unsealed(order.keys)
    except AnydimError as error:
        sys.exit(f"a front end cannot start: {error.message}")
    with asyncio.Runner(loop_factory=loop_factory()) as runner, socket.socket(fileno=order.listener) as listener:
        runner.run(_serve(order, models, keys, listener, report))
    os._exit(0)  # the thread that reads standard input may still wait


async def _serve(
    order: FrontOrder, models: Models, keys: KeyRing | None, listener: socket.socket, report: object
) -> None:
    settings = order.settings.engine
    prices = costs([served.intake.card for served in models])
    lines = [EngineClient(Path(path), settings.watchdog_timeout, prices) for path in order.engines]
    front = FrontEnd(order.settings, models, listener, keys, as_one(lines, settings.slice_tokens))
    words = _Words(front, order.metrics)
    for line in lines:
        line.connect()
    serving = front.start()
    saying = asyncio.create_task(_say_when_ready(lines, report))
    try:
        await first_of(serving, words.drain)
        draining = asyncio.create_task(front.drain())
        await first_of(draining, words.hurry)
        draining.cancel()
    finally:
        saying.cancel()
        await asyncio.gather(
            *(line.close() for line in lines)
        )  # whoever still waits is answered 503, while there is someone to answer
        await front.stop()


async def _say_when_ready(lines: Sequence[EngineClient], report: object) -> None:
    """Once this front end has lines to warm engines of its own, so that nobody meets one that has not."""
    while not all(line.health().ready for line in lines):
        await asyncio.sleep(_LOOK_SECONDS)
    print(READY, file=report, flush=True)  # type: ignore[call-overload]


class _Words:
    """What the server says on standard input."""

    def __init__(self, front: FrontEnd, metrics: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._front = front
        self._metrics = metrics
        self.drain: asyncio.Future[None] = self._loop.create_future()
        self.hurry: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin.buffer:
            self._loop.call_soon_threadsafe(self._hear, line.decode().strip())
        shutil.rmtree(self._metrics, ignore_errors=True)  # a server that was killed could not tidy up
        os._exit(1)

    def _hear(self, word: str) -> None:
        if word == "reload":
            self._front.reload()
        if word in ("drain", "hurry") and not self.drain.done():
            self.drain.set_result(None)
        if word == "hurry" and not self.hurry.done():
            self._front.hurry()
            self.hurry.set_result(None)


if __name__ == "__main__":
    main()

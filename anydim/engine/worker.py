"""Worker: the engine's own process. Loads the model, then serves Items over a Unix socket.

Run: by the supervisor, as ``python -m anydim.engine.worker`` with one JSON line on standard input; it lives as long
as that input stays open, so that it never outlives its server. It reports on standard output (see wire.Report) and
draws progress bars on standard error. It knows no HTTP and no text.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import shutil
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Final

import msgspec
import torch

from anydim.config import EngineSettings, ModelSettings
from anydim.engine import wire
from anydim.engine.engine import Engine
from anydim.engine.event_loop import loop_factory
from anydim.engine.load import load_engines
from anydim.engine.memory import bound_process
from anydim.engine.placing import placed
from anydim.errors import AnydimError
from anydim.logs import configure_logs
from anydim.models.build import resolve_device
from anydim.models.card import read_card
from anydim.types import Output

_LOG = logging.getLogger(__name__)
_BEAT_SECONDS: Final = 0.25
_FLAGS: Final = "raise --mem-fraction-static, lower --max-batch-tokens, or choose a smaller --dtype"


class Order(msgspec.Struct):
    """What the supervisor asks for; of each model its folder, its name and how it is served.

    ``place`` is which of the server's engines this one is.
    """

    models: list[tuple[str, str, ModelSettings]]
    socket: str
    engine: EngineSettings
    show_progress: bool
    log_json: bool = False
    place: int = 0


def main() -> None:
    """Run until standard input closes."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the server's to handle: it drains first
        signal.signal(number, signal.SIG_IGN)
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print to standard output must not speak for us
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    configure_logs(order.log_json)
    try:
        settings = placed(order.engine, order.place)
        bound_process(resolve_device(settings.device), settings.mem_fraction_static)
        rows = [(read_card(Path(folder), name, model.task), model) for folder, name, model in order.models]
        folder = Path(order.socket).parent
        engine, started = load_engines(
            rows, settings, order.show_progress, scratch=folder, on_loss=partial(_die, report)
        )
    except AnydimError as error:
        _say(report, wire.Failed(error.kind, error.message))  # type: ignore[arg-type]
        sys.exit(1)
    except torch.OutOfMemoryError as error:
        _say(report, wire.Failed("config", f"the GPU's memory does not suffice: {_FLAGS} ({error})"))
        sys.exit(1)
    gc.collect()
    gc.freeze()  # the loaded model is never garbage: do not walk it again
    hello = wire.Hello(started.device, started.dtype, started.batch_tokens)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(engine, hello, Path(order.socket), report, started))


def _say(report: object, message: wire.Report) -> None:
    print(msgspec.json.encode(message).decode(), file=report, flush=True)  # type: ignore[call-overload]


def _die(report: object, reason: str) -> None:
    """End with a last word: what this process cannot work without is gone."""
    _say(report, wire.Failed("failed", reason))
    os._exit(2)


async def _serve(engine: Engine, hello: wire.Hello, path: Path, report: object, started: wire.Started) -> None:
    server = await asyncio.start_unix_server(partial(_converse, engine, hello, report), path)
    os.chmod(path, 0o600)
    _say(report, started)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    threading.Thread(target=_until_closed, args=(loop, stop), daemon=True).start()
    async with server:
        await stop.wait()
    shutil.rmtree(path.parent, ignore_errors=True)  # a server that was killed could not tidy up
    os._exit(0)  # nobody waits any more: do not finish batches for them


def _until_closed(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    while sys.stdin.buffer.readline():
        pass
    loop.call_soon_threadsafe(stop.set)


async def _converse(
    engine: Engine, hello: wire.Hello, report: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """One front end: take its submissions, answer them as they finish."""
    tasks: dict[int, asyncio.Task[None]] = {}
    wire.write_frame(writer, hello)
    beats = asyncio.create_task(_beat(engine, report, writer))
    try:
        while True:
            header, payload = await wire.read_frame(reader)
            if isinstance(header, wire.Submit):
                task = asyncio.create_task(_answer(engine, writer, header, payload))
                tasks[header.id] = task
                task.add_done_callback(partial(_forget, tasks, header.id))
            elif isinstance(header, wire.Cancel) and header.id in tasks:
                tasks[header.id].cancel()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        for task in [beats, *tasks.values()]:
            task.cancel()
        writer.close()


def _forget(tasks: dict[int, asyncio.Task[None]], identity: int, done: asyncio.Task[None]) -> None:
    del tasks[identity]


async def _answer(engine: Engine, writer: asyncio.StreamWriter, header: wire.Submit, payload: memoryview) -> None:
    try:
        outputs: list[Output] = await asyncio.wrap_future(engine.submit(wire.unpack_items(header, payload)))
        result, values = wire.pack_outputs(header.id, outputs)
        wire.write_frame(writer, result, values)
    except AnydimError as error:
        wire.write_frame(writer, wire.Refused(header.id, error.kind, error.message, getattr(error, "retry_after", 1.0)))
    except Exception as error:
        _LOG.exception("a submission failed")
        wire.write_frame(writer, wire.Refused(header.id, "failed", f"the engine failed: {type(error).__name__}", 1.0))
    await writer.drain()


async def _beat(engine: Engine, report: object, writer: asyncio.StreamWriter) -> None:
    while True:
        status = engine.status()
        if not status.alive:  # everyone is answered; the supervisor starts a new process
            await asyncio.sleep(_BEAT_SECONDS)  # why it failed is known a moment after that it did
            reason = engine.reason or "the engine's loop has stopped"
            wire.write_frame(writer, wire.Beat(False, status.busy_seconds, status.counts, reason))
            await writer.drain()
            _die(report, reason)
        wire.write_frame(writer, wire.Beat(status.alive, status.busy_seconds, status.counts))
        await asyncio.sleep(_BEAT_SECONDS)


if __name__ == "__main__":
    main()

"""Serve: settings -> socket -> model -> engine process -> HTTP, and back in order when a signal comes.

It composes the floors and knows the order of starting and stopping; it computes nothing itself. Imports no torch: that
is the engine process's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from typing import Any, Final

import click
import uvicorn

from anydim.api.app import create_app
from anydim.api.auth import KeyRing
from anydim.api.connection import Connection, Limits
from anydim.api.metrics import REFUSED
from anydim.api.models import ServedModel
from anydim.cli.gate import Gate
from anydim.cli.info import size_words
from anydim.cli.listen import address_to_open, is_loopback, listen, open_file_limit, own_hosts
from anydim.cli.reload import Reload, load_certificate
from anydim.config import ServerSettings, Settings
from anydim.engine.supervisor import Supervisor
from anydim.engine.wire import Started
from anydim.intake.intake import Intake
from anydim.logs import NEWS, configure_logs
from anydim.models.registry import find_model
from anydim.progress import progress_bar

_LAST_SECONDS: Final = 3  # for connections that hold on after their answer
_RESERVED_FILES: Final = 64  # open files that are no client's: the engine's line, pipes, libraries, the model
_LEAST_CONNECTIONS: Final = 8
_EXAMPLE_DIM: Final = 256


def serve_forever(settings: Settings) -> int:
    """Serve until a signal comes.

    Returns:
        The exit code: 0 after SIGTERM, 130 after Ctrl-C.

    Raises:
        ConfigError: a setting does not fit, or the port is taken.
        ModelError: the model is not there, broken or not supported.
        ComputeFailed: the engine's process died while it started.
    """
    configure_logs(settings.server.log_json)
    _check_tls(settings.server)
    keys = KeyRing.of(settings.server)
    # From here on the process holds hashes only.
    settings = dataclasses.replace(settings, server=dataclasses.replace(settings.server, api_key=()))
    with contextlib.closing(listen(settings.server.host, settings.server.port)) as listener:
        _warn_if_open(settings.server, keys is not None)
        intake = _load_intake(settings)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_Site(settings, intake, listener, keys).run())


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the order of stopping is decided here."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Site:
    """One server from start to stop."""

    def __init__(self, settings: Settings, intake: Intake, listener: socket.socket, keys: KeyRing | None) -> None:
        self._settings = settings
        self._intake = intake
        self._listener = listener
        self._keys = keys

    async def run(self) -> int:
        """Start, serve, drain, stop; the exit code."""
        model, engine, server = self._settings.model, self._settings.engine, self._settings.server
        supervisor = Supervisor(self._intake.card, model, engine, _draws_bars(server), server.log_json)
        served = ServedModel(intake=self._intake, aliases=model.served_model_name)
        app = create_app(served, supervisor.handle, server, keys=self._keys, hosts=own_hosts(server))
        gate = Gate(app)
        http = _Server(_uvicorn_config(gate, server, partial(app.state.metrics.add, REFUSED)))
        signals = _Signals(on_second=partial(setattr, http, "force_exit", True))
        reload = Reload(server, self._keys)
        if reload.is_needed:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
        await supervisor.start()
        http.config.load()
        reload.tls = http.config.ssl
        serving = asyncio.create_task(http.serve(sockets=[self._listener]))
        ready = asyncio.create_task(supervisor.wait_ready())
        try:
            await _first_of(ready, serving, signals.first)
            if ready.done():
                self._announce(ready.result())
                await _first_of(serving, signals.first)
            app.state.draining.now = True
            await signals.unless_second(gate.drain(server.drain_timeout))
        finally:
            ready.cancel()
            try:
                await supervisor.stop()  # whoever still waits is answered 503, while there is someone to answer
            finally:
                http.should_exit = True
                await serving
        return signals.exit_code

    def _announce(self, started: Started) -> None:
        host, port = self._settings.server.host, self._listener.getsockname()[1]
        address = address_to_open(host, port, self._settings.server.tls_cert is not None)
        rule = self._intake.rule
        for line in (
            f"Model loaded in {started.weights_seconds + started.warmup_seconds:.1f}s "
            f"(weights {started.weights_seconds:.1f}s, warm-up {started.warmup_seconds:.1f}s)",
            f"Serving {self._intake.card.name} on {started.device} in {started.dtype}; "
            f"dimensions: {rule.allowed}, by default {rule.default}",
            *_memory(started),
            f"Server running on {address}",
            f"Documentation at {address}/docs",
            f"Try: {self._curl(address)}",
        ):
            self._say(line)

    def _say(self, line: str) -> None:
        if self._settings.server.log_json:
            logging.getLogger(NEWS).info(line)
        else:
            click.echo(line)

    def _curl(self, address: str) -> str:
        key = " -H 'Authorization: Bearer YOUR_KEY'" if self._keys is not None else ""
        dim = self._intake.rule.nearest_below(_EXAMPLE_DIM)
        return (
            f"curl {address}/v1/embeddings -H 'Content-Type: application/json'{key} "
            f"""-d '{{"input": "hello", "output_dim": {dim}}}'"""
        )


def _memory(started: Started) -> Iterator[str]:
    """What the model takes of its GPU, where that was measured."""
    if started.allowed_bytes:
        sizes = (started.weights_bytes, started.workspace_bytes, started.allowed_bytes)
        weights, batch, allowed = map(size_words, sizes)
        yield f"Memory: {weights} weights, {batch} for a batch of {started.batch_tokens:,} tokens, of {allowed} allowed"


class _Signals:
    """SIGTERM and Ctrl-C: the first asks for an orderly stop, the second for a quick one."""

    def __init__(self, on_second: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[int] = loop.create_future()
        self._second: asyncio.Future[None] = loop.create_future()
        self._on_second = on_second
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._arrived, number)

    @property
    def exit_code(self) -> int:
        """0 after SIGTERM, 130 after Ctrl-C, 1 where no signal came."""
        if not self.first.done():
            return 1
        return 0 if self.first.result() == signal.SIGTERM else 128 + self.first.result()

    async def unless_second(self, work: Coroutine[object, object, None]) -> None:
        """Wait for some work, but no longer once the second signal has come."""
        task = asyncio.create_task(work)
        await _first_of(task, self._second)
        task.cancel()

    def _arrived(self, number: int) -> None:
        if not self.first.done():
            self.first.set_result(number)
        elif not self._second.done():
            self._second.set_result(None)
            self._on_second()


async def _first_of(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _draws_bars(settings: ServerSettings) -> bool:
    return settings.enable_tqdm and not settings.log_json


def _load_intake(settings: Settings) -> Intake:
    wanted = _draws_bars(settings.server)
    if not wanted:
        from huggingface_hub.utils.tqdm import disable_progress_bars

        disable_progress_bars()
    with progress_bar("Preparing the model", wanted) as progress:
        card = find_model(settings.model, progress)
    return Intake.of(card, settings.model)


def _uvicorn_config(gate: Gate, settings: ServerSettings, refused: Callable[[str], None]) -> uvicorn.Config:
    limits = Limits(settings=settings, connections=_most_connections(settings), refused=refused)
    return uvicorn.Config(
        gate,
        http=partial(Connection, limits),  # type: ignore[arg-type]  # uvicorn only calls it
        ws="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_timeout,  # type: ignore[arg-type]  # a number for a timer
        timeout_graceful_shutdown=_LAST_SECONDS,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )


def _most_connections(settings: ServerSettings) -> int:
    """The setting, or what the limit of open files leaves, so that the engine's line can always be opened anew."""
    room = max(_LEAST_CONNECTIONS, open_file_limit() - _RESERVED_FILES)
    return min(settings.max_connections or room, room)


def _check_tls(settings: ServerSettings) -> None:
    """Find a wrong certificate before the model is loaded."""
    if settings.tls_cert is not None or settings.tls_key is not None:
        load_certificate(settings, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


def _warn_if_open(settings: ServerSettings, has_keys: bool) -> None:
    if not has_keys and not is_loopback(settings.host):
        click.echo(
            f"Warning: anyone who reaches {settings.host or 'this machine'} may use this server; set --api-key or "
            "--api-key-file",
            err=True,
        )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory

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
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final

import click

from anydim.api.auth import KeyRing
from anydim.api.models import Models
from anydim.cli.front import FrontEnd
from anydim.cli.front_process import FrontOrder
from anydim.cli.fronts import Fronts
from anydim.cli.info import size_words
from anydim.cli.listen import address_to_open, is_loopback, listen_often
from anydim.cli.reload import Reload, load_certificate
from anydim.cli.served import find_cards, serve_models
from anydim.cli.signals import Signals, first_of
from anydim.config import ServerSettings, Settings
from anydim.engine.crew import Crew
from anydim.engine.event_loop import loop_factory
from anydim.engine.wire import Started
from anydim.intake.intake import Intake
from anydim.intake.scoring import ScoreIntake
from anydim.logs import NEWS, configure_logs

_EXAMPLE_DIM: Final = 256
_WORTH_TELLING_SECONDS: Final = 0.05  # a CPU starts at once


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
    with contextlib.ExitStack() as open_sockets:
        listeners = listen_often(settings.server.host, settings.server.port, settings.server.http_workers)
        for listener in listeners:
            open_sockets.enter_context(listener)
        _warn_if_open(settings.server, keys is not None)
        cards = find_cards(settings, _draws_bars(settings.server))
        models = serve_models(cards, settings)
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            return runner.run(_Site(settings, models, listeners, keys).run())


class _Site:
    """One server from start to stop."""

    def __init__(
        self, settings: Settings, models: Models, listeners: Sequence[socket.socket], keys: KeyRing | None
    ) -> None:
        self._settings = settings
        self._models = models
        self._listeners = listeners
        self._keys = keys

    async def run(self) -> int:
        """Start, serve, drain, stop; the exit code."""
        model, engine, server = self._settings.model, self._settings.engine, self._settings.server
        cards = [served.intake.card for served in self._models]
        others = list(zip(cards[1:], self._settings.others, strict=True))
        crew = Crew(cards[0], model, engine, _draws_bars(server), server.log_json, others)
        return await (self._run_here(crew) if len(self._listeners) == 1 else self._run_several(crew))

    async def _run_here(self, crew: Crew) -> int:
        """With the one front end in this process."""
        front = FrontEnd(self._settings, self._models, self._listeners[0], self._keys, crew.handle)
        signals = Signals(front.hurry)
        if front.reload.is_needed:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, front.reload)
        await crew.start()
        serving = front.start()
        ready = asyncio.create_task(crew.wait_ready())
        try:
            await first_of(ready, serving, signals.first)
            if ready.done():
                self._announce(ready.result())
                await first_of(serving, signals.first)
            await signals.unless_second(front.drain())
        finally:
            ready.cancel()
            try:
                await crew.stop()  # whoever still waits is answered 503, while there is someone to answer
            finally:
                await front.stop()
        return signals.exit_code

    async def _run_several(self, crew: Crew) -> int:
        """With front ends in processes of their own."""
        fronts = Fronts(self._order(crew), self._listeners, self._settings.server.drain_timeout)
        signals = Signals(partial(fronts.tell, "hurry"))
        if Reload(self._settings.server, self._keys).is_needed:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, fronts.tell, "reload")
        await crew.start()
        fronts.start()
        ready = asyncio.create_task(crew.wait_ready())
        try:
            await first_of(asyncio.gather(ready, fronts.wait_ready()), fronts.failed, signals.first)
            if ready.done() and not fronts.failed.done():
                self._announce(ready.result())
                await first_of(fronts.failed, signals.first)
            await signals.unless_second(fronts.drain())
            if fronts.failed.done():
                raise fronts.failed.result()
        finally:
            ready.cancel()
            try:
                await crew.stop()
            finally:
                await fronts.stop()
        return signals.exit_code

    def _order(self, crew: Crew) -> FrontOrder:
        cards = [served.intake.card for served in self._models]
        return FrontOrder(
            settings=self._settings,
            models=[(str(card.folder), card.name) for card in cards],
            engines=[str(path) for path in crew.sockets],
            listener=-1,
            keys=None if self._keys is None else self._keys.sealed(),
            metrics="",
        )

    def _announce(self, started: Started) -> None:
        host, port = self._settings.server.host, self._listeners[0].getsockname()[1]
        address = address_to_open(host, port, self._settings.server.tls_cert is not None)
        for line in (
            loading_words(started),
            *(
                f"Serving {served.id} on {started.device} in {started.dtype}; {_what(served.intake)}"
                for served in self._models
            ),
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
        path, body = _example(self._models.first.intake)
        return f"curl {address}{path} -H 'Content-Type: application/json'{key} -d '{body}'"


def loading_words(started: Started) -> str:
    """How long it took until the model served."""
    parts = [("weights", started.weights_seconds), ("warm-up", started.warmup_seconds)]
    if started.device_seconds >= _WORTH_TELLING_SECONDS:
        parts.insert(0, ("device", started.device_seconds))
    told = ", ".join(f"{name} {seconds:.1f}s" for name, seconds in parts)
    return f"Model loaded in {sum(seconds for _, seconds in parts):.1f}s ({told})"


def _what(intake: Intake | ScoreIntake) -> str:
    """What a model does, for people."""
    if isinstance(intake, Intake):
        return f"dimensions: {intake.rule.allowed}, by default {intake.rule.default}"
    kind = "reranker" if intake.scorer.is_reranker else f"classifier with {len(intake.scorer.labels)} labels"
    return f"a {kind}, since {intake.scorer.reason}"


def _example(intake: Intake | ScoreIntake) -> tuple[str, str]:
    """A path and a body to try."""
    if isinstance(intake, Intake):
        return "/v1/embeddings", f'{{"input": "hello", "output_dim": {intake.rule.nearest_below(_EXAMPLE_DIM)}}}'
    if intake.scorer.is_reranker:
        return "/v1/rerank", '{"query": "hello", "documents": ["good morning", "goodbye"]}'
    return "/predict", '{"inputs": "hello"}'


def _memory(started: Started) -> Iterator[str]:
    """What the model takes of its GPU, where that was measured."""
    if started.allowed_bytes:
        sizes = (started.weights_bytes, started.workspace_bytes, started.allowed_bytes)
        weights, batch, allowed = map(size_words, sizes)
        yield f"Memory: {weights} weights, {batch} for a batch of {started.batch_tokens:,} tokens, of {allowed} allowed"


def _draws_bars(settings: ServerSettings) -> bool:
    return settings.enable_tqdm and not settings.log_json


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

"""FrontEnd: the application on a listening socket, from start to stop, in this process.

It knows uvicorn and the order of stopping; it knows no engine's process and no signals. Imports no torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Iterator
from functools import partial
from socket import socket
from typing import Final

import uvicorn

from anydim.api.app import create_app
from anydim.api.auth import KeyRing
from anydim.api.connection import Connection, Limits
from anydim.api.metrics import REFUSED
from anydim.api.models import Models
from anydim.cli.gate import Gate
from anydim.cli.listen import open_file_limit, own_hosts
from anydim.cli.reload import Reload
from anydim.config import ServerSettings, Settings
from anydim.engine.handle import EngineHandle
from anydim.retrieval.routes import search_entrance

LAST_SECONDS: Final = 3
"""For connections that hold on after their answer."""

_RESERVED_FILES: Final = 64  # open files that are no client's: the engine's line, pipes, libraries, the model
_LEAST_CONNECTIONS: Final = 8


class FrontEnd:
    """One front end."""

    def __init__(
        self, settings: Settings, models: Models, listener: socket, keys: KeyRing | None, engine: EngineHandle
    ) -> None:
        """Prepare.

        Args:
            settings: all settings.
            models: the served models.
            listener: a listening socket.
            keys: the keys, or None where the server is open.
            engine: what runs the Items.
        """
        server = settings.server
        entrances = search_entrance(models, settings.index)
        self._app = create_app(models, engine, server, keys=keys, hosts=own_hosts(server), entrances=entrances)
        self._gate = Gate(self._app)
        self._http = _Server(_uvicorn_config(self._gate, server, partial(self._app.state.metrics.add, REFUSED)))
        self._listener = listener
        self._drain_timeout = server.drain_timeout
        self.reload = Reload(server, keys)

    def start(self) -> asyncio.Task[None]:
        """Serve from now on; the task ends when serving does."""
        self._http.config.load()
        self.reload.tls = self._http.config.ssl
        gc.collect()
        gc.freeze()  # modules and tokenizers are never garbage: walking them again would hold up every request
        self._serving = asyncio.create_task(self._http.serve(sockets=[self._listener]))
        return self._serving

    async def drain(self) -> None:
        """Refuse new requests, and wait for those under way as long as the settings allow."""
        self._app.state.draining.now = True
        await self._gate.drain(self._drain_timeout)

    def hurry(self) -> None:
        """Let nobody finish."""
        self._http.force_exit = True

    async def stop(self) -> None:
        """End serving."""
        self._http.should_exit = True
        await self._serving


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the order of stopping is decided here."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


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
        timeout_graceful_shutdown=LAST_SECONDS,
        ssl_certfile=settings.tls_cert,
        ssl_keyfile=settings.tls_key,
    )


def _most_connections(settings: ServerSettings) -> int:
    """This front end's part of the setting, or what the limit of open files leaves.

    So the engine's line can always be opened anew.
    """
    room = max(_LEAST_CONNECTIONS, open_file_limit() - _RESERVED_FILES)
    wanted = settings.max_connections
    return room if wanted is None else min(room, -(-wanted // settings.http_workers))

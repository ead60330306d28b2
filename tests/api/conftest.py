"""An in-process client, a real server on a free port, and a server with an engine of the test's own choice."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from anydim import testing
from anydim.api.app import create_app
from anydim.api.connection import Connection, Limits
from anydim.api.models import Models, ServedModel
from anydim.config import ServerSettings

Embed = Callable[..., Any]


@pytest.fixture(scope="module")
def http() -> Iterator[TestClient]:
    """A server with all defaults."""
    with testing.client() as client:
        yield client


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of a real server."""
    with testing.app() as app, running(app) as url:
        yield url


@contextlib.contextmanager
def running(
    app: Any, refused: Callable[[str], None] = print, connections: int = 1000, **settings: Any
) -> Iterator[str]:
    """Serve an application in a thread, as `anydim serve` does."""
    limits = Limits(settings=ServerSettings(**settings), connections=connections, refused=refused)
    protocol: Any = partial(Connection, limits)
    keep_alive: Any = limits.settings.keep_alive_timeout
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=protocol,
                ws="none",
                log_level="error",
                timeout_graceful_shutdown=2,
                timeout_keep_alive=keep_alive,
            )
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)


@contextlib.contextmanager
def with_engine(engine: Any, **settings: Any) -> Iterator[TestClient]:
    """A client of a server whose engine is the test's own."""
    served = ServedModel(intake=testing.intake())
    with TestClient(create_app(Models([served]), engine, ServerSettings(**settings))) as client:
        yield client

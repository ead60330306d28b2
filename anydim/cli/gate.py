"""Gate: counts the requests under way and, once it is closed, refuses new ones and waits for the rest.

Pure ASGI around the whole application; it knows the probes' paths and nothing else of what it guards.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from anydim.api.status import dialect_of, error_response
from anydim.errors import Unavailable

_PROBES: Final = frozenset({"/health", "/ready"})


class Gate:
    """The way in to an application, open until ``drain``."""

    def __init__(self, app: ASGIApp) -> None:
        """Guard an application."""
        self._app = app
        self._under_way = 0
        self._is_open = True
        self._idle = asyncio.Event()
        self._idle.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it when the gate is closed."""
        if scope["type"] != "http" or scope["path"] in _PROBES:
            await self._app(scope, receive, send)
        elif not self._is_open:
            refusal = error_response(Unavailable("the server is stopping"), dialect_of(scope["path"]))
            await refusal(scope, receive, send)
        else:
            await self._count(scope, receive, send)

    async def drain(self, limit: float) -> None:
        """Close the gate, and wait until the requests under way are answered, at most ``limit`` seconds."""
        self._is_open = False
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), limit)

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._under_way += 1
        self._idle.clear()
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

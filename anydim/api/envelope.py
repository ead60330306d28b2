"""Envelope: every answer gets a request id, and every exception becomes an answer in the dialect's shape.

Pure ASGI. Logs hold the request's id, the exception's type and lines of our own code; never its message, which may
quote a user's text.
"""

from __future__ import annotations

import logging
import os
import re
import traceback
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anydim.api.status import Dialect, dialect_of, error_response, http_error_response
from anydim.errors import AnydimError

_LOG = logging.getLogger(__name__)
_HEADER: Final = b"x-request-id"
_SAFE: Final = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
_FIT: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


class Envelope:
    """Middleware around everything but CORS."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id.decode()
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": _headers(message, request_id)}
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnect:
            _LOG.info("request %s: the client has gone", request_id.decode())
        except Exception as error:
            if started:
                raise
            state["error_kind"] = error.kind if isinstance(error, AnydimError) else "crashed"
            dialect = state.get("dialect") or dialect_of(scope["path"].removeprefix(scope.get("root_path", "")))
            response = _answer(error, dialect, request_id.decode())
            await response(scope, receive, send_with_id)


def _headers(message: Message, request_id: bytes) -> list[tuple[bytes, bytes]]:
    """The answer's own headers, its id, and what keeps browsers and caches from making more of it than it is."""
    own = list(message.get("headers", ()))
    return [*own, (_HEADER, request_id), *_SAFE]


def _request_id(scope: Scope) -> bytes:
    """The client's own id where it is fit for a header and a log line, else a new one."""
    for name, value in scope["headers"]:
        if name == _HEADER and _FIT.fullmatch(value):
            return bytes(value)
    return os.urandom(16).hex().encode()


def _answer(error: Exception, dialect: Dialect, request_id: str) -> Response:
    if isinstance(error, AnydimError):
        return error_response(error, dialect)
    where = "".join(traceback.format_tb(error.__traceback__))
    _LOG.error("request %s failed with %s\n%s", request_id, type(error).__name__, where)
    return http_error_response(500, f"the server failed on this request (id {request_id})", dialect, "failed")

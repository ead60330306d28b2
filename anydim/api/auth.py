"""Keys: everything behind them but /health, /ready and the static page at /.

Keys are kept as hashes only and compared in constant time. Pure ASGI; knows nothing of what it guards.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from anydim.config import ServerSettings
from anydim.errors import ConfigError, Unauthorized

OPEN_PATHS: Final = frozenset({"/", "/health", "/ready"})
_KEY_HEADERS: Final = (b"api-key", b"x-api-key")


def read_keys(settings: ServerSettings) -> tuple[str, ...]:
    """The keys of ``--api-key`` and of the lines of ``--api-key-file``; empty where the server is open.

    Raises:
        ConfigError: a key is empty, or the file cannot be read or holds no key.
    """
    keys = list(settings.api_key)
    if not all(key.strip() for key in keys):
        raise ConfigError("--api-key must not be empty")
    if settings.api_key_file:
        keys += _keys_of_file(Path(settings.api_key_file).expanduser())
    return tuple(keys)


def _keys_of_file(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--api-key-file {path} cannot be read: {type(error).__name__}") from error
    keys = [line.strip() for line in lines if line.strip()]
    if not keys:  # an empty file must not open the server
        raise ConfigError(f"--api-key-file {path} holds no key")
    return keys


class KeyGuard:
    """Middleware that refuses requests without a known key."""

    def __init__(self, app: ASGIApp, keys: Iterable[str]) -> None:
        """Guard an application with one or more keys."""
        self._app = app
        self._hashes = tuple(_hash(key.encode()) for key in keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it.

        Raises:
            Unauthorized: the key is missing or wrong.
        """
        if scope["type"] == "lifespan" or self._admits(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            raise Unauthorized(_refusal(scope))

    def _admits(self, scope: Scope) -> bool:
        if scope["type"] == "http" and scope["path"].removeprefix(scope.get("root_path", "")) in OPEN_PATHS:
            return True
        return any(self._knows(key) for key in _sent_keys(scope))

    def _knows(self, key: bytes) -> bool:
        sent = _hash(key)
        found = False
        for known in self._hashes:  # all of them, so that the time tells nothing
            found |= hmac.compare_digest(sent, known)
        return found


def _sent_keys(scope: Scope) -> list[bytes]:
    found = []
    for name, value in scope["headers"]:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            found.append(value[7:].strip())
        elif name in _KEY_HEADERS:
            found.append(value.strip())
    return found


def _refusal(scope: Scope) -> str:
    if _sent_keys(scope):
        return "Incorrect API key provided"
    return "You didn't provide an API key: send it as a header, Authorization: Bearer KEY"


def _hash(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()

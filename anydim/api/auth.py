"""Keys: everything behind them but /health, /ready and the static files of the page at /.

Keys have names, which stand in logs, in metrics and behind fair shares. They are kept as hashes only and compared in
constant time. Pure ASGI; knows nothing of what it guards.

Syntax, in a flag, in a variable and on a line of the file alike: `KEY`, or `NAME:KEY`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from starlette.types import ASGIApp, Receive, Scope, Send

from anydim.api.shell import SHELL_PATHS
from anydim.config import ServerSettings
from anydim.errors import ConfigError, Unauthorized

OPEN_PATHS: Final = frozenset({"/health", "/ready"}) | SHELL_PATHS
_KEY_HEADERS: Final = (b"api-key", b"x-api-key")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class SealedKeys(msgspec.Struct):
    """A KeyRing on its way between two processes: names by hash (hexadecimal), the hashes' salt, and the file."""

    salt: bytes
    given: dict[str, str]
    file: str | None


class KeyRing:
    """The hashes of all keys, each with its name.

    A key without a name is called `key-1`, `key-2` and so on, by its place. Several keys may share a name, so that one
    can be replaced while both work.
    """

    def __init__(self, given: Sequence[str], file: Path | None = None) -> None:
        """Read keys.

        Args:
            given: `KEY` or `NAME:KEY`; these stay for good.
            file: one a line, or None; empty lines and lines that begin with `#` are skipped.

        Raises:
            ConfigError: a key is empty or given twice under two names, or the file cannot be read or holds no key.
        """
        self._salt = secrets.token_bytes(32)  # hashes of one process say nothing to anyone outside it
        self._file = file
        self._given = self._hashed(given, "--api-key", 1)
        self._names = self._all()

    @classmethod
    def of(cls, settings: ServerSettings) -> KeyRing | None:
        """The keys of ``--api-key`` and ``--api-key-file``; None where the server is open.

        Raises:
            ConfigError: see the constructor.
        """
        file = Path(settings.api_key_file).expanduser() if settings.api_key_file else None
        return cls(settings.api_key, file) if settings.api_key or file else None

    @classmethod
    def unsealed(cls, sealed: SealedKeys) -> KeyRing:
        """The same keys in another process of the server.

        Raises:
            ConfigError: the file of keys cannot be used any more.
        """
        ring = cls(())
        ring._salt, ring._given = sealed.salt, {bytes.fromhex(known): name for known, name in sealed.given.items()}
        ring._file = None if sealed.file is None else Path(sealed.file)
        ring._names = ring._all()
        return ring

    def sealed(self) -> SealedKeys:
        """What another process of this server needs to know the same keys: hashes, their salt and the file."""
        given = {known.hex(): name for known, name in self._given.items()}
        return SealedKeys(self._salt, given, None if self._file is None else str(self._file))

    def __len__(self) -> int:
        return len(self._names)

    @property
    def has_file(self) -> bool:
        """Whether there is a file to read again."""
        return self._file is not None

    def reload(self) -> None:
        """Read the file again; requests from now on need one of the keys that it holds now.

        Raises:
            ConfigError: the file cannot be used; the keys stay what they were.
        """
        self._names = self._all()

    def name_of(self, sent: bytes) -> str | None:
        """The name of a key, or None where it is not known; the time does not tell which."""
        wanted, found = self._hash(sent), None
        for known, name in self._names.items():  # all of them, always
            if hmac.compare_digest(wanted, known):
                found = name
        return found

    def _all(self) -> dict[bytes, str]:
        if self._file is None:
            return self._given
        return self._merged(self._given, self._hashed(_lines(self._file), str(self._file), len(self._given) + 1))

    def _hashed(self, given: Sequence[str], place: str, first: int) -> dict[bytes, str]:
        names: dict[bytes, str] = {}
        for number, (name, key) in enumerate(_parsed(given, place), first):
            names = self._merged(names, {self._hash(key.encode()): name or f"key-{number}"})
        return names

    def _merged(self, names: dict[bytes, str], more: dict[bytes, str]) -> dict[bytes, str]:
        for known in names.keys() & more.keys():
            if names[known] != more[known]:
                raise ConfigError(f"one key has two names, {names[known]} and {more[known]}")
        return names | more

    def _hash(self, key: bytes) -> bytes:
        return hashlib.blake2b(key, key=self._salt).digest()


def _parsed(given: Sequence[str], place: str) -> Iterator[tuple[str, str]]:
    """Name (empty where there is none) and key; what stands before the first colon is the name."""
    for text in given:
        before, colon, after = text.strip().partition(":")
        name, key = (before.strip(), after.strip()) if colon else ("", before)
        if not key:
            raise ConfigError(f"{place}: a key must not be empty")
        if name and not _NAME.fullmatch(name):
            raise ConfigError(
                f"{place}: what stands before the first colon is the key's name: letters, digits, '.', '_' and '-'; "
                "for a key with a colon write NAME:KEY"
            )
        yield name, key


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--api-key-file {path} cannot be read: {type(error).__name__}") from error
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:  # an empty file must not open the server
        raise ConfigError(f"--api-key-file {path} holds no key")
    return keys


class KeyGuard:
    """Middleware that refuses requests without a known key, and notes the key's name in ``state["key_name"]``."""

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        """Guard an application."""
        self._app = app
        self._keys = keys

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
        if _is_open(scope):
            return True
        names = [name for key in _sent_keys(scope) if (name := self._keys.name_of(key))]
        if names:
            scope.setdefault("state", {})["key_name"] = names[0]
        return bool(names)


def _is_open(scope: Scope) -> bool:
    """Whether a request needs no key; what POST / answers does."""
    if scope["type"] != "http" or scope["method"] == "POST":
        return False
    return scope["path"].removeprefix(scope.get("root_path", "")) in OPEN_PATHS


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

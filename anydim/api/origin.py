"""Origin: what a browser sends on behalf of a page that is not ours is refused where no key stands in the way.

A server without keys on this machine's own address is open to every program here, and a browser is one that runs
strangers' code: a page may post to 127.0.0.1 without reading the answer, and a name that its owner points to 127.0.0.1
lets it read the answer too. Pure ASGI; it knows two headers and nothing of what it guards.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from anydim.api.status import dialect_of, http_error_response

_PROBES: Final = frozenset({"/health", "/ready"})
_ANY: Final = "*"


class OriginGuard:
    """Middleware for servers without keys."""

    def __init__(self, app: ASGIApp, origins: Collection[str], hosts: Collection[str] | None) -> None:
        """Guard an application.

        Args:
            app: the application.
            origins: web origins whose pages may ask; `*` for all.
            hosts: names that the Host header may have; None for all.
        """
        self._app = app
        self._origins = frozenset(origins)
        self._hosts = None if hosts is None or _ANY in hosts else frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 403."""
        why = self._objection(scope) if scope["type"] == "http" else ""
        if not why:
            await self._app(scope, receive, send)
            return
        scope.setdefault("state", {})["error_kind"] = "foreign_origin"
        response = http_error_response(403, why, dialect_of(scope["path"]), "foreign_origin")
        await response(scope, receive, send)

    def _objection(self, scope: Scope) -> str:
        if scope["path"] in _PROBES:
            return ""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name in (b"host", b"origin")}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        if self._hosts is not None and _name(host) not in self._hosts:
            return "this server answers to this machine's own names; start it with --allowed-host NAME to add one"
        if origin is None or _ANY in self._origins or origin in self._origins or urlsplit(origin).netloc == host:
            return ""
        return "pages of other origins may not ask this server; start it with --cors-origin ORIGIN to allow one"


def _name(host: str) -> str:
    """A Host header without its port, in lower case."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()

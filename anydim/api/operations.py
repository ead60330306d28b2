"""Operation: one route of a dialect, as the application serves it and /openapi.json describes it.

It knows paths and structs; it knows nothing of what happens behind them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from anydim.api.status import Dialect

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path.

    Attributes:
        path: as Starlette writes it.
        method: GET or POST.
        name: its operationId.
        summary: what it does, in a sentence.
        dialect: whose errors it answers with.
        handler: what serves it.
        body: the struct of the request, or None.
        bodies: further structs that the path takes (where dialects share it).
        answer: the struct or type of the answer; None where it is described by ``content``.
        content: answers of other kinds than JSON, by media type.
        example: a body to try.
        only: the error statuses that it can give; None for all of the dialect's.
        also: those of another dialect that a body may choose.
    """

    path: str
    method: str = "POST"
    name: str
    summary: str
    dialect: Dialect
    handler: Handler
    body: type[msgspec.Struct] | None = None
    bodies: tuple[type[msgspec.Struct], ...] = ()
    answer: Any = None
    content: MappingProxyType[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    example: Any = None
    only: tuple[int, ...] | None = None
    also: tuple[int, ...] = ()

    def route(self) -> Route:
        """The route that serves it."""
        return Route(self.path, self.handler, methods=[self.method])

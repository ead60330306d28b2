"""One table: the kind of an error -> the status and the words of each dialect. Each dialect has its own error shape.

It knows kinds and shapes; it knows no routes beyond which dialect owns a path.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import msgspec
from starlette.responses import Response

from anydim.api.words import bounded
from anydim.errors import AnydimError, Overloaded, Unauthorized


class Dialect(enum.StrEnum):
    """The interfaces that the server speaks."""

    OPENAI = "openai"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How one kind of error is told.

    Attributes:
        status: the HTTP status, in every dialect that ``elsewhere`` does not name.
        meaning: what it means, for the documentation.
        type: OpenAI's ``type``.
        code: OpenAI's ``code``.
        elsewhere: the statuses of dialects that differ.
    """

    status: int
    meaning: str
    type: str = "invalid_request_error"
    code: str | None = None
    elsewhere: Mapping[Dialect, int] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, dialect: Dialect) -> int:
        """The status in one dialect."""
        return self.elsewhere.get(dialect, self.status)


TABLE: Final[Mapping[str, Row]] = MappingProxyType(
    {
        "invalid": Row(status=400, meaning="A field has a wrong value.", code="invalid_value"),
        "too_long": Row(status=400, meaning="A text has too many tokens.", code="context_length_exceeded"),
        "unauthorized": Row(status=401, meaning="No key, or a wrong one.", code="invalid_api_key"),
        "not_found": Row(status=404, meaning="No served model answers to that name.", code="model_not_found"),
        "not_acceptable": Row(status=406, meaning="The answer cannot take that form.", code="not_acceptable"),
        "too_large": Row(status=413, meaning="The body is larger than the server reads.", code="body_too_large"),
        "overloaded": Row(
            status=429,
            meaning="The queue is full; Retry-After says when to try again.",
            type="rate_limit_error",
            code="rate_limit_exceeded",
        ),
        "deadline": Row(
            status=504,
            meaning="The time that the request gave has passed.",
            type="server_error",
            code="deadline_exceeded",
        ),
        "failed": Row(status=500, meaning="The model failed on an input.", type="server_error", code="failed"),
        "unavailable": Row(
            status=503, meaning="The engine is starting, stopping or dead.", type="server_error", code="unavailable"
        ),
    }
)


class ErrorDetail(msgspec.Struct, kw_only=True):
    """What went wrong, and where."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(msgspec.Struct, kw_only=True):
    """OpenAI's error shape."""

    error: ErrorDetail


def dialect_of(path: str) -> Dialect:
    """The dialect that owns a path, whatever is sent to it."""
    return Dialect.OPENAI


def statuses(dialect: Dialect) -> dict[int, str]:
    """Each status that a dialect answers with in case of an error, and what it means."""
    found: dict[int, str] = {}
    for row in TABLE.values():
        status = row.of(dialect)
        found[status] = f"{found[status]} {row.meaning}" if status in found else row.meaning
    return found


def error_response(error: AnydimError, dialect: Dialect) -> Response:
    """Answer an error of our own tree in a dialect's shape."""
    row = TABLE.get(error.kind, TABLE["failed"])
    detail = ErrorDetail(
        message=bounded(error.message), type=row.type, param=getattr(error, "param", None), code=row.code
    )
    return _shaped(row.of(dialect), detail, _headers(error))


def http_error_response(
    status: int, message: str, dialect: Dialect, code: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer what HTTP itself refuses (404, 405, 415) or what nobody foresaw (500) in a dialect's shape."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return _shaped(status, ErrorDetail(message=bounded(message), type=kind, code=code), headers)


def _shaped(status: int, detail: ErrorDetail, headers: Mapping[str, str] | None) -> Response:
    body = msgspec.json.encode(ErrorBody(error=detail))
    return Response(body, status, headers=dict(headers or {}), media_type="application/json")


def _headers(error: AnydimError) -> dict[str, str]:
    if isinstance(error, Overloaded):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    return {}

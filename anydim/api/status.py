"""One table: the kind of an error -> the status and the words of each dialect. Each dialect has its own error shape.

It knows kinds and shapes; it knows no routes beyond which dialect owns a path.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import msgspec
from starlette.responses import Response

from anydim.api.words import bounded
from anydim.errors import AnydimError, Overloaded, Unauthorized


class Dialect(enum.StrEnum):
    """The interfaces that the server speaks."""

    OPENAI = "openai"
    COHERE = "cohere"
    JINA = "jina"
    COHERE_JINA = "cohere-jina"  # /v1/rerank, whose answers satisfy the clients of both
    TEI = "tei"
    VLLM = "vllm"
    OLLAMA = "ollama"


_JINA_422: Final = MappingProxyType({Dialect.JINA: 422, Dialect.TEI: 422})
_TEI_424: Final = MappingProxyType({Dialect.TEI: 424})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """How one kind of error is told.

    Attributes:
        status: the HTTP status, in every dialect that ``elsewhere`` does not name.
        meaning: what it means, for the documentation.
        type: OpenAI's ``type``.
        code: OpenAI's ``code``.
        tei: TEI's ``error_type``.
        elsewhere: the statuses of dialects that differ.
    """

    status: int
    meaning: str
    type: str = "invalid_request_error"
    code: str | None = None
    tei: str = "Validation"
    elsewhere: Mapping[Dialect, int] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, dialect: Dialect) -> int:
        """The status in one dialect."""
        return self.elsewhere.get(dialect, self.status)


TABLE: Final[Mapping[str, Row]] = MappingProxyType(
    {
        "invalid": Row(status=400, meaning="A field has a wrong value.", code="invalid_value", elsewhere=_JINA_422),
        "empty": Row(
            status=400,
            meaning="There is no text.",
            code="invalid_value",
            tei="Empty",
            elsewhere=MappingProxyType({Dialect.JINA: 422}),
        ),
        "too_long": Row(
            status=400, meaning="A text has too many tokens.", code="context_length_exceeded", elsewhere=_JINA_422
        ),
        "unauthorized": Row(status=401, meaning="No key, or a wrong one.", code="invalid_api_key"),
        "not_found": Row(status=404, meaning="No served model answers to that name.", code="model_not_found"),
        "not_acceptable": Row(status=406, meaning="The answer cannot take that form.", code="not_acceptable"),
        "too_large": Row(status=413, meaning="The body is larger than the server reads.", code="body_too_large"),
        "overloaded": Row(
            status=429,
            meaning="The queue is full; Retry-After says when to try again.",
            type="rate_limit_error",
            code="rate_limit_exceeded",
            tei="Overloaded",
        ),
        "deadline": Row(
            status=504,
            meaning="The time that the request gave has passed.",
            type="server_error",
            code="deadline_exceeded",
            tei="Overloaded",
        ),
        "failed": Row(
            status=500,
            meaning="The model failed on an input.",
            type="server_error",
            code="failed",
            tei="Backend",
            elsewhere=_TEI_424,
        ),
        "unavailable": Row(
            status=503,
            meaning="The engine is starting, stopping or dead.",
            type="server_error",
            code="unavailable",
            tei="Unhealthy",
        ),
    }
)
_VLLM_TYPES: Final = MappingProxyType(
    {
        400: "BadRequestError",
        401: "AuthenticationError",
        404: "NotFoundError",
        429: "RateLimitError",
        503: "ServiceUnavailableError",
    }
)
_OWNERS: Final = MappingProxyType(
    {
        **dict.fromkeys(("/v1/embed", "/v2/embed", "/v2/rerank"), Dialect.COHERE),
        "/v1/rerank": Dialect.COHERE_JINA,
        "/rerank": Dialect.JINA,
        **dict.fromkeys(("/embed", "/embed_all", "/predict", "/similarity", "/decode", "/info"), Dialect.TEI),
        **dict.fromkeys(("/score", "/v1/score", "/tokenize", "/detokenize", "/pooling"), Dialect.VLLM),
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


class MessageBody(msgspec.Struct, kw_only=True):
    """Cohere's error shape."""

    message: str


class DetailBody(msgspec.Struct, kw_only=True):
    """Jina's error shape."""

    detail: str


class MessageDetailBody(msgspec.Struct, kw_only=True):
    """Cohere's and Jina's error shapes in one."""

    message: str
    detail: str


class TypedBody(msgspec.Struct, kw_only=True):
    """TEI's error shape."""

    error: str
    error_type: str


class VllmDetail(msgspec.Struct, kw_only=True):
    """What went wrong, in vLLM's words."""

    message: str
    type: str
    param: str | None = None
    code: int


class VllmBody(msgspec.Struct, kw_only=True):
    """vLLM's error shape."""

    error: VllmDetail


class PlainBody(msgspec.Struct, kw_only=True):
    """Ollama's error shape."""

    error: str


SHAPES: Final[Mapping[Dialect, type[msgspec.Struct]]] = MappingProxyType(
    {
        Dialect.OPENAI: ErrorBody,
        Dialect.COHERE: MessageBody,
        Dialect.JINA: DetailBody,
        Dialect.COHERE_JINA: MessageDetailBody,
        Dialect.TEI: TypedBody,
        Dialect.VLLM: VllmBody,
        Dialect.OLLAMA: PlainBody,
    }
)


def dialect_of(path: str) -> Dialect:
    """The dialect that owns a path; a body may show that another one is meant, see api/service.py."""
    return Dialect.OLLAMA if path.startswith("/api/") else _OWNERS.get(path, Dialect.OPENAI)


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
    return _shaped(row.of(dialect), detail, row.tei, dialect, _headers(error))


def http_error_response(
    status: int, message: str, dialect: Dialect, code: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer what HTTP itself refuses (404, 405, 415) or what nobody foresaw (500) in a dialect's shape."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    tei = "Backend" if status >= 500 else "Validation"
    return _shaped(status, ErrorDetail(message=bounded(message), type=kind, code=code), tei, dialect, headers)


def _shaped(
    status: int, detail: ErrorDetail, tei: str, dialect: Dialect, headers: Mapping[str, str] | None
) -> Response:
    body = msgspec.json.encode(_body(status, detail, tei, dialect))
    return Response(body, status, headers=dict(headers or {}), media_type="application/json")


def _body(status: int, detail: ErrorDetail, tei: str, dialect: Dialect) -> Any:
    message = detail.message
    match dialect:
        case Dialect.COHERE:
            return MessageBody(message=message)
        case Dialect.JINA:
            return DetailBody(detail=message)
        case Dialect.COHERE_JINA:
            return MessageDetailBody(message=message, detail=message)
        case Dialect.TEI:
            return TypedBody(error=message, error_type=tei)
        case Dialect.VLLM:
            kind = _VLLM_TYPES.get(status, "InternalServerError" if status >= 500 else "BadRequestError")
            return VllmBody(error=VllmDetail(message=message, type=kind, param=detail.param, code=status))
        case Dialect.OLLAMA:
            return PlainBody(error=message)
    return ErrorBody(error=detail)


def _headers(error: AnydimError) -> dict[str, str]:
    if isinstance(error, Overloaded):
        return {"Retry-After": str(max(1, math.ceil(error.retry_after)))}
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    return {}

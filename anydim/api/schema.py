"""The OpenAPI 3.1 document, made from the structs that requests are decoded into and answers encoded from.

It knows routes and structs; it knows nothing of how they are served.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from anydim.api.operations import Operation
from anydim.api.probes import ProbeAnswer
from anydim.api.status import SHAPES, Dialect, statuses
from anydim.api.vectors import Form

_VERSION: Final = "1"
_KEY: Final = "key"
_HTTP_ERRORS: Final = (
    (405, "The route takes another method."),
    (415, "The body is compressed."),
)

Json = dict[str, Any]


def openapi(operations: Sequence[Operation], secured: bool) -> Json:
    """The document.

    Args:
        operations: the dialects' routes.
        secured: whether the server asks for a key.
    """
    types = _types(operations)
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    known = dict(zip(map(repr, types), schemas, strict=True))
    if "EmbeddingRequest" in components:
        components["EmbeddingRequest"]["properties"]["input"] |= {"anyOf": _input_kinds()}
    document: Json = {
        "openapi": "3.1.0",
        "info": {"title": "anydim", "version": _VERSION, "description": "Text embeddings of any dimension, reranking."},
        "paths": _paths(operations, known),
        "components": {"schemas": components},
    }
    if secured:
        document["components"]["securitySchemes"] = {_KEY: {"type": "http", "scheme": "bearer"}}
        document["security"] = [{_KEY: []}]
    return document


def _types(operations: Sequence[Operation]) -> list[Any]:
    """Everything that the document describes, each once."""
    found: list[Any] = [ProbeAnswer, *SHAPES.values()]
    for operation in operations:
        found += [operation.body, *operation.bodies, operation.answer]
    return list({repr(kind): kind for kind in found if kind is not None}.values())


def _input_kinds() -> list[Json]:
    """What `input` may be; the struct's type is wider, since one list type is all that it can tell apart."""
    text: Json = {"type": "string"}
    ids: Json = {"type": "array", "items": {"type": "integer"}}
    return [text, {"type": "array", "items": text}, ids, {"type": "array", "items": ids}]


def _paths(operations: Sequence[Operation], known: Json) -> Json:
    paths: Json = {}
    for operation in operations:
        path = operation.path.replace("{name:path}", "{model}")
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation, known)
        if "{model}" in path:
            parameter = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
            paths[path][operation.method.lower()]["parameters"] = [parameter]
    paths["/health"] = {"get": _probe("health", "Whether the engine lives.")}
    paths["/ready"] = {"get": _probe("ready", "Whether requests should come here now.")}
    paths["/metrics"] = {"get": _plain("metrics", "Numbers for Prometheus.", "text/plain")}
    paths["/openapi.json"] = {"get": _plain("openapi", "This document.", "application/json")}
    paths["/docs"] = {"get": _plain("docs", "This document as a page.", "text/html")}
    return paths


def _operation(operation: Operation, known: Json) -> Json:
    schema = {} if operation.answer is None else known[repr(operation.answer)]
    content: Json = {str(Form.JSON): {"schema": schema}}
    content |= {kind: {"schema": shape} for kind, shape in operation.content.items()}
    described: Json = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {"200": {"description": operation.summary, "content": content}, **_errors_of(operation)},
    }
    if operation.body is not None:
        bodies = [known[repr(body)] for body in (operation.body, *operation.bodies)]
        shape = bodies[0] if len(bodies) == 1 else {"anyOf": bodies}
        media: Json = {"schema": shape, "example": operation.example}
        described["requestBody"] = {"required": True, "content": {str(Form.JSON): media}}
    return described


def _errors_of(operation: Operation) -> Json:
    found = _errors(operation.dialect, operation.only)
    shapes = {SHAPES[operation.dialect].__name__, *(["DetailBody"] if operation.also else [])}
    shapes |= {"TypedBody", "ErrorBody"} if operation.bodies else set()
    if len(shapes) > 1:
        others = [_of(name)["schema"] for name in sorted(shapes)]
        statuses_of = {*map(str, operation.also), *(["422", "424", "400"] if operation.bodies else [])}
        for status in statuses_of - set(found):
            found[status] = {"description": "In the shape of another dialect.", "content": {}}
        for answer in found.values():
            answer["content"] = {str(Form.JSON): {"schema": {"anyOf": others}}}
    return found


def _probe(name: str, summary: str) -> Json:
    answer = {"content": {str(Form.JSON): _of("ProbeAnswer")}}
    responses = {"200": {"description": "Yes.", **answer}, "503": {"description": "No.", **answer}}
    return {"operationId": name, "summary": summary, "security": [], "responses": responses}


def _plain(name: str, summary: str, kind: str) -> Json:
    success = {"description": summary, "content": {kind: {"schema": {}}}}
    return {"operationId": name, "summary": summary, "responses": {"200": success, **_errors(only=(401, 405))}}


def _errors(dialect: Dialect = Dialect.OPENAI, only: tuple[int, ...] | None = None) -> Json:
    known = dict(sorted((statuses(dialect) | dict(_HTTP_ERRORS)).items()))
    return {
        str(status): {"description": meaning, "content": {str(Form.JSON): _of(SHAPES[dialect].__name__)}}
        for status, meaning in known.items()
        if only is None or status in only
    }


def _of(struct: str) -> Json:
    return {"schema": {"$ref": f"#/components/schemas/{struct}"}}

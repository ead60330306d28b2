"""The OpenAPI 3.1 document, made from the structs that requests are decoded into and answers encoded from.

It knows routes and structs; it knows nothing of how they are served.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from anydim.api.dialects.openai_fields import EmbeddingList, EmbeddingRequest, ModelInfo, ModelList
from anydim.api.info import Info
from anydim.api.models import ServedModel
from anydim.api.probes import ProbeAnswer
from anydim.api.status import Dialect, ErrorBody, statuses
from anydim.api.vectors import Form

_STRUCTS: Final = (EmbeddingRequest, EmbeddingList, Info, ModelInfo, ModelList, ProbeAnswer, ErrorBody)
_VERSION: Final = "1"
_KEY: Final = "key"
_HTTP_ERRORS: Final = (
    (405, "The route takes another method."),
    (415, "The body is compressed."),
)

Json = dict[str, Any]


def openapi(served: ServedModel, secured: bool) -> Json:
    """The document.

    Args:
        served: the model; examples name it.
        secured: whether the server asks for a key.
    """
    _, components = msgspec.json.schema_components(_STRUCTS, ref_template="#/components/schemas/{name}")
    components["EmbeddingRequest"]["properties"]["input"] |= {"anyOf": _input_kinds()}
    document: Json = {
        "openapi": "3.1.0",
        "info": {"title": "anydim", "version": _VERSION, "description": "Text embeddings of any dimension."},
        "paths": _paths(served),
        "components": {"schemas": components},
    }
    if secured:
        document["components"]["securitySchemes"] = {_KEY: {"type": "http", "scheme": "bearer"}}
        document["security"] = [{_KEY: []}]
    return document


def _input_kinds() -> list[Json]:
    """What `input` may be; the struct's type is wider, since one list type is all that it can tell apart."""
    text: Json = {"type": "string"}
    ids: Json = {"type": "array", "items": {"type": "integer"}}
    return [text, {"type": "array", "items": text}, ids, {"type": "array", "items": ids}]


def _paths(served: ServedModel) -> Json:
    paths: Json = {}
    for prefix in ("/v1", ""):
        suffix = "" if prefix else "_without_prefix"
        paths[f"{prefix}/embeddings"] = {"post": _embeddings(served, suffix)}
        paths[f"{prefix}/models"] = {"get": _get("list_models" + suffix, "The served model's names.", "ModelList")}
        one = _get("get_model" + suffix, "One name of the served model; it may hold slashes.", "ModelInfo")
        one["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]
        one["responses"] |= _errors(only=(404,))
        paths[f"{prefix}/models/{{model}}"] = {"get": one}
    paths["/health"] = {"get": _probe("health", "Whether the engine lives.")}
    paths["/ready"] = {"get": _probe("ready", "Whether requests should come here now.")}
    paths["/info"] = {"get": _get("info", "What is served and within which limits.", "Info")}
    paths["/metrics"] = {"get": _plain("metrics", "Numbers for Prometheus.", "text/plain")}
    paths["/openapi.json"] = {"get": _plain("openapi", "This document.", "application/json")}
    paths["/docs"] = {"get": _plain("docs", "This document as a page.", "text/html")}
    return paths


def _embeddings(served: ServedModel, suffix: str) -> Json:
    example = {"model": served.names[0], "input": ["first text", "second text"], "dimensions": served.intake.rule.step}
    forms: Json = {str(form): {"schema": {"type": "string", "format": "binary"}} for form in (Form.RAW, Form.ARROW)}
    success = {"description": "One vector an input.", "content": {str(Form.JSON): _of("EmbeddingList"), **forms}}
    return {
        "operationId": "create_embeddings" + suffix,
        "summary": "Embed texts.",
        "requestBody": {
            "required": True,
            "content": {str(Form.JSON): {**_of("EmbeddingRequest"), "example": example}},
        },
        "responses": {"200": success, **_errors()},
    }


def _get(name: str, summary: str, struct: str) -> Json:
    success = {"description": summary, "content": {str(Form.JSON): _of(struct)}}
    return {"operationId": name, "summary": summary, "responses": {"200": success, **_errors(only=(401, 405))}}


def _probe(name: str, summary: str) -> Json:
    answer = {"content": {str(Form.JSON): _of("ProbeAnswer")}}
    responses = {"200": {"description": "Yes.", **answer}, "503": {"description": "No.", **answer}}
    return {"operationId": name, "summary": summary, "security": [], "responses": responses}


def _plain(name: str, summary: str, kind: str) -> Json:
    success = {"description": summary, "content": {kind: {"schema": {}}}}
    return {"operationId": name, "summary": summary, "responses": {"200": success, **_errors(only=(401, 405))}}


def _errors(only: tuple[int, ...] | None = None) -> Json:
    known = dict(sorted((statuses(Dialect.OPENAI) | dict(_HTTP_ERRORS)).items()))
    return {
        str(status): {"description": meaning, "content": {str(Form.JSON): _of("ErrorBody")}}
        for status, meaning in known.items()
        if only is None or status in only
    }


def _of(struct: str) -> Json:
    return {"schema": {"$ref": f"#/components/schemas/{struct}"}}

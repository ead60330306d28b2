"""Pages: /openapi.json, and /docs drawn from it on the server.

The page needs no scripts, loads nothing from elsewhere, and escapes all that it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from html import escape
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from anydim.api.operations import Operation
from anydim.api.schema import Json, openapi

_HEADERS: Final = (
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
)
_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#222;"
    "background:#fff}table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;"
    "padding:.3rem .6rem;border-bottom:1px solid #ddd}code,pre{font:14px/1.4 ui-monospace,monospace}"
    "pre{background:#f5f5f5;padding:.8rem;overflow:auto}"
    "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}td,th{border-color:#444}"
    "pre{background:#262626}a{color:#8bf}}"
)


class PageRoutes:
    """What describes the interface."""

    def __init__(self, operations: Sequence[Operation], secured: bool) -> None:
        """Describe these routes, when somebody first asks."""
        self._operations = operations
        self._secured = secured

    def routes(self) -> list[Route]:
        """Both routes."""
        return [
            Route("/openapi.json", self.openapi, methods=["GET"]),
            Route("/docs", self.docs, methods=["GET"]),
        ]

    async def openapi(self, request: Request) -> Response:
        """GET /openapi.json."""
        return Response(msgspec.json.encode(self._document), media_type="application/json")

    async def docs(self, request: Request) -> Response:
        """GET /docs."""
        return self._docs

    @cached_property
    def _document(self) -> Json:
        return openapi(self._operations, self._secured)

    @cached_property
    def _docs(self) -> Response:
        return _page("anydim: the interface", draw(self._document))


def draw(document: Json) -> str:
    """The HTML body of an OpenAPI document."""
    schemas = document["components"]["schemas"]
    parts = ["<h1>anydim: the interface</h1>", '<p>Also as <a href="openapi.json">OpenAPI 3.1</a>.</p>']
    if "security" in document:
        parts.append("<p>Send a key with each request: <code>Authorization: Bearer KEY</code>.</p>")
    for path, methods in document["paths"].items():
        if not path.startswith("/v1") and "/v1" + path in document["paths"]:
            continue  # the same route without its prefix
        for method, operation in methods.items():
            parts += _operation(path, method, operation, schemas)
    return "".join(parts)


def _operation(path: str, method: str, operation: Json, schemas: Json) -> list[str]:
    parts = [f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation['summary'])}</p>"]
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]["application/json"]
        for shape in content["schema"].get("anyOf", [content["schema"]]):
            parts.append(f"<h3>Fields</h3>{_fields(_resolve(shape, schemas))}")
        parts.append(f"<h3>Example</h3><pre>{escape(_curl(path, content['example']))}</pre>")
    rows = [
        f"<tr><td>{status}</td><td>{escape(answer['description'])}</td></tr>"
        for status, answer in operation["responses"].items()
    ]
    parts.append(f"<h3>Answers</h3><table>{''.join(rows)}</table>")
    return parts


def _fields(schema: Json) -> str:
    required = schema.get("required", [])
    rows = []
    for name, field in schema["properties"].items():
        kind = escape(_kind(field)) + (" (required)" if name in required else "")
        text = escape(field.get("description", ""))
        rows.append(f"<tr><td><code>{escape(name)}</code></td><td>{kind}</td><td>{text}</td></tr>")
    return f"<table><tr><th>Field</th><th>Type</th><th>Meaning</th></tr>{''.join(rows)}</table>"


def _kind(field: Json) -> str:
    """The type of a field in words, null left out."""
    if "anyOf" in field:
        return " or ".join(_kind(kind) for kind in field["anyOf"] if kind.get("type") != "null")
    if "enum" in field:
        return ", ".join(map(str, field["enum"]))
    if field.get("type") == "array":
        return f"array of {_kind(field.get('items', {}))}"
    return str(field.get("type", "any"))


def _resolve(schema: Json, schemas: Json) -> Json:
    found: Json = schemas[schema["$ref"].rsplit("/", 1)[-1]]
    return found


def _curl(path: str, example: Any) -> str:
    body = msgspec.json.encode(example).decode().replace("'", "'\\''")
    return f"curl http://HOST:PORT{path} -H 'Content-Type: application/json' -d '{body}'"


def _page(title: str, body: str) -> Response:
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>{body}</body></html>'
    )
    return Response(html, headers=dict(_HEADERS), media_type="text/html")

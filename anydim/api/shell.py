"""Shell: the static files of the page at /, plain HTML, CSS and JavaScript modules beside this file in page/.

They hold no data, so that they need no key: the page asks for the key and for all that it shows, as any client does.
It knows files and headers; what the page does is said in page/ and in docs/page.md.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FOLDER: Final = Path(__file__).with_name("page")
_ROOT: Final = "index.html"
_KINDS: Final = MappingProxyType(
    {".css": "text/css", ".js": "text/javascript", ".json": "application/json", ".svg": "image/svg+xml"}
)
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # no text of a user can become HTML
        "trusted-types 'none'",
    )
)
_HEADERS: Final = (
    ("Content-Security-Policy", _POLICY),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
)

FILES: Final = tuple(sorted(file.name for file in _FOLDER.iterdir() if file.suffix in _KINDS))
"""The names of the files that the page loads."""

SHELL_PATHS: Final = frozenset({"/", *(f"/page/{name}" for name in FILES)})
"""The paths of the page, which need no key."""


class ShellRoutes:
    """The page at / and each of its files."""

    def routes(self) -> list[Route]:
        """A route a file, so that no path can lead to another one."""
        files = [Route(f"/page/{name}", self.file, methods=["GET"]) for name in FILES]
        return [Route("/", self.root, methods=["GET"]), *files]

    async def root(self, request: Request) -> Response:
        """GET /: static, needs no key and holds no data."""
        return _answer(self._contents[_ROOT], "text/html")

    async def file(self, request: Request) -> Response:
        """GET /page/NAME."""
        name = request.url.path.rpartition("/")[2]
        return _answer(self._contents[name], _KINDS[Path(name).suffix])

    @cached_property
    def _contents(self) -> dict[str, bytes]:
        return {name: (_FOLDER / name).read_bytes() for name in (_ROOT, *FILES)}


def _answer(content: bytes, kind: str) -> Response:
    return Response(content, headers=dict(_HEADERS), media_type=kind)

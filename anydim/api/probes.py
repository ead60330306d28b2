"""Probes: /health (does the engine live?) and /ready (should requests come here now?)."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from anydim.engine.handle import EngineHandle


class ProbeAnswer(msgspec.Struct, kw_only=True):
    """The state, and where it is not good, or not that of every engine, why."""

    status: str
    reason: str = ""


@dataclass(slots=True)
class Draining:
    """Whether this front end is about to stop; set by its owner, told by /ready."""

    now: bool = False


class ProbeRoutes:
    """The routes of one engine."""

    def __init__(self, engine: EngineHandle, draining: Draining) -> None:
        """Probe one engine."""
        self._engine = engine
        self._draining = draining

    def routes(self) -> list[Route]:
        """Both routes; neither needs a key."""
        return [Route("/health", self.health, methods=["GET"]), Route("/ready", self.ready, methods=["GET"])]

    async def health(self, request: Request) -> Response:
        """GET /health: 503 when the engine is dead or stuck."""
        health = self._engine.health()
        return _answer(health.alive, "ok", health.reason)

    async def ready(self, request: Request) -> Response:
        """GET /ready: 503 also until the engine is warm, and while the server is draining."""
        health = self._engine.health()
        if self._draining.now:
            return _answer(False, "ready", "the server is stopping")
        return _answer(health.alive and health.ready, "ready", health.reason)


def _answer(good: bool, word: str, reason: str) -> Response:
    status, why = (word, reason) if good else ("unavailable", reason or "not ready yet")
    answer = ProbeAnswer(status=status, reason=why)
    return Response(msgspec.json.encode(answer), 200 if good else 503, media_type="application/json")

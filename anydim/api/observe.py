"""Observe: times and counts every request, bounds their bodies together, and writes a line of each where asked to.

The outermost layer. It knows routes, statuses and clocks; what a client sent is written only where `--request-log
body` asks for it.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anydim.api.metrics import (
    ERRORS,
    IN_FLIGHT,
    KEYS,
    RECEIVED,
    REQUEST_SECONDS,
    REQUESTS,
    SENT,
    STAGE_SECONDS,
    HttpMetrics,
)
from anydim.config import ServerSettings
from anydim.engine.handle import Passing
from anydim.errors import Overloaded
from anydim.logs import REQUESTS as REQUEST_LOG
from anydim.types import Item, Output

CLIENT_GONE: Final = 499  # nginx's status for a client that left before its answer
_LOG: Final = logging.getLogger(REQUEST_LOG)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LONGEST_BODY: Final = 1000
_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_OTHER: Final = "other"
_QUIET: Final = frozenset({"/health", "/ready", "/metrics"})


@dataclass(slots=True)
class Held:
    """Bytes that all requests under way hold together.

    Attributes:
        what: what holds them, for people.
        most: how many there may be.
        now: how many there are.
    """

    what: str
    most: int
    now: int = 0

    def take(self, size: int) -> None:
        """Hold so many more; whoever takes them gives them back, also where they were too many.

        Raises:
            Overloaded: they are too many.
        """
        self.now += size
        if self.now > self.most:
            raise Overloaded(f"{self.what} of all requests under way are larger than {self.most} bytes")


@dataclass(slots=True)
class Course:
    """The course of one request: times in seconds of a monotonic clock, sizes in bytes."""

    answers: Held
    began: float = field(default_factory=time.perf_counter)
    engine_began: float | None = None
    engine_ended: float | None = None
    status: int = 0
    received: int = 0
    sent: int = 0
    reserved: int = 0
    body: bytearray = field(default_factory=bytearray)


_COURSE: Final[ContextVar[Course | None]] = ContextVar("anydim_course", default=None)


def reserve_answer(size: int) -> None:
    """Hold so many bytes for the answer of the request at hand until it has been sent.

    Raises:
        Overloaded: all answers under way together would hold too many.
    """
    course = _COURSE.get()
    if course is not None:
        course.reserved += size
        course.answers.take(size)


class TimedEngine(Passing):
    """An EngineHandle that notes in the course of the request when the engine had it."""

    async def run(self, items: Sequence[Item]) -> list[Output]:
        """See EngineHandle."""
        course = _COURSE.get()
        if course is None:
            return await self._engine.run(items)
        course.engine_began = course.engine_began or time.perf_counter()
        try:
            return await self._engine.run(items)
        finally:
            course.engine_ended = time.perf_counter()


class RouteNames:
    """A request's path -> the path of its route as it was declared, so that metrics hold no ids and no texts."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        """Know the routes of an application."""
        self._plain = {path for route in routes if "{" not in (path := str(getattr(route, "path", "")))}
        self._patterns = [route for route in routes if "{" in str(getattr(route, "path", ""))]

    def of(self, scope: Scope) -> str:
        """The route's path, or `other` where there is none."""
        path = str(scope["path"]).removeprefix(scope.get("root_path", ""))
        if path in self._plain:
            return path
        for route in self._patterns:
            if route.path_regex.match(path):  # type: ignore[attr-defined]
                return str(route.path)  # type: ignore[attr-defined]
        return _OTHER


class Observer:
    """Middleware around everything."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics, names: RouteNames, settings: ServerSettings) -> None:
        """Watch an application."""
        self._app = app
        self._metrics = metrics
        self._names = names
        self._logged = settings.request_log
        self._bodies = Held("the bodies", settings.max_bodies_bytes)
        self._answers = Held("the answers", settings.max_answers_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, and count it however it ends."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        course = Course(self._answers)
        scope.setdefault("state", {})
        token = _COURSE.set(course)
        self._metrics.add(IN_FLIGHT)
        try:
            await self._app(scope, self._listening(receive, course), _speaking(send, course))
        finally:
            _COURSE.reset(token)
            self._bodies.now -= course.received
            self._answers.now -= course.reserved
            self._metrics.add(IN_FLIGHT, amount=-1)
            self._finish(scope, course)

    def _listening(self, receive: Receive, course: Course) -> Receive:
        keeps_body = self._logged == "body"

        async def listen() -> Message:
            message = await receive()
            body = message.get("body", b"")
            course.received += len(body)
            self._bodies.take(len(body))
            if keeps_body and len(course.body) < _LONGEST_BODY:
                course.body += body[:_LONGEST_BODY]
            return message

        return listen

    def _finish(self, scope: Scope, course: Course) -> None:
        seconds = time.perf_counter() - course.began
        route, status = self._names.of(scope), str(course.status or CLIENT_GONE)
        method = scope["method"] if scope["method"] in _METHODS else _OTHER
        metrics, state = self._metrics, scope["state"]
        metrics.add(REQUESTS, route, method, status)
        metrics.observe(REQUEST_SECONDS, route, status, seconds=seconds)
        metrics.add(RECEIVED, amount=course.received)
        metrics.add(SENT, amount=course.sent)
        if "key_name" in state:
            metrics.add(KEYS, state["key_name"])
        if int(status) >= 400 and route not in _QUIET:
            metrics.add(ERRORS, "client_gone" if not course.status else state.get("error_kind", "http"))
        self._count_stages(course)
        if self._logged != "none":
            self._log(scope, course, route, method, status, seconds)

    def _count_stages(self, course: Course) -> None:
        if course.engine_began is None or course.engine_ended is None:
            return
        for stage, seconds in (
            ("prepare", course.engine_began - course.began),
            ("engine", course.engine_ended - course.engine_began),
            ("encode", time.perf_counter() - course.engine_ended),
        ):
            self._metrics.observe(STAGE_SECONDS, stage, seconds=seconds)

    def _log(self, scope: Scope, course: Course, route: str, method: str, status: str, seconds: float) -> None:
        state = scope["state"]
        fields: dict[str, Any] = {
            "method": method,
            "route": route,
            "status": int(status),
            "seconds": round(seconds, 6),
            "received_bytes": course.received,
            "sent_bytes": course.sent,
            "key": state.get("key_name"),
            "request_id": state.get("request_id"),
            "trace_id": state.get("trace_id") or _trace_id(scope),
            "client": (scope.get("client") or (None,))[0],
        }
        if self._logged == "body":
            fields["body"] = course.body[:_LONGEST_BODY].decode("utf-8", "replace")
        _LOG.info("request", extra={"fields": {name: value for name, value in fields.items() if value is not None}})


def _trace_id(scope: Scope) -> str | None:
    """The trace that a client says its request belongs to, also where nothing is traced here."""
    for name, value in scope["headers"]:
        if name == b"traceparent" and (found := _TRACEPARENT.fullmatch(value)):
            return str(found[1].decode())
    return None


def _speaking(send: Send, course: Course) -> Send:
    async def speak(message: Message) -> None:
        if message["type"] == "http.response.start":
            course.status = message["status"]
        course.sent += len(message.get("body", b""))
        await send(message)

    return speak

"""Connection: uvicorn's HTTP/1.1 protocol with the limits that it lacks: size of the head, and time for each phase.

httptools reads a head of any size and uvicorn waits for ever for its end, for a body and for a reader. Here a client
that sends too much is refused and one that stalls is let go, whatever it stalls at, so that neither memory nor open
files can be taken hostage. It knows bytes, phases and clocks; it knows no routes and no keys.

    idle --first byte--> head --blank line--> body --last byte--> answer --> idle
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from httptools import HttpParserError
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from anydim.api.status import dialect_of, http_error_response
from anydim.config import ServerSettings

CAUSES: Final = ("malformed", "head_too_large", "head_timeout", "body_timeout", "send_timeout", "connections")
_LEAST_SENT: Final = 65_536  # bytes of an answer that a client must read in each send timeout


class _Phase(enum.Enum):
    IDLE = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()
    ANSWER = enum.auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a connection may take.

    Attributes:
        settings: sizes in bytes and times in seconds.
        connections: most connections at once.
        refused: called with one of CAUSES when a connection is refused or let go.
    """

    settings: ServerSettings
    connections: int
    refused: Callable[[str], None]


class Connection(HttpToolsProtocol):
    """One connection of a client."""

    def __init__(self, limits: Limits, **given: Any) -> None:
        """Bind uvicorn's arguments to our limits."""
        super().__init__(**given)
        self._limits = limits
        self._phase = _Phase.IDLE
        self._watched: _Phase | None = None
        self._head_bytes = 0
        self._fed_bytes = 0
        self._is_head_too_large = False
        self._is_last = False
        self._deadline: asyncio.TimerHandle | None = None
        self._send_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet a client, or send it away where there are too many."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > self._limits.connections:
            self._refuse("connections", 503, "the server has as many connections as it takes; try again later")
        else:
            self._watch(_Phase.HEAD)  # a client that says nothing is held no longer than one that dawdles

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the clocks."""
        self._unwatch()
        self._stop_sending_clock()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, then look whether the phase has another clock."""
        if self._is_last:
            return
        if self._phase in (_Phase.IDLE, _Phase.HEAD):
            self._fed_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing() or self._is_last:
            return
        if self._phase is _Phase.HEAD and self._fed_bytes > self._limits.settings.max_header_bytes:
            self._is_head_too_large = True  # one header without an end, which the parser keeps to itself
            self.send_400_response("")
        elif self._phase in (_Phase.HEAD, _Phase.BODY):
            self._watch(self._phase)
        else:
            self._unwatch()

    def on_message_begin(self) -> None:
        """A request begins."""
        self._phase = _Phase.HEAD
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole; the application starts."""
        self._phase = _Phase.BODY
        self._fed_bytes = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is whole."""
        self._phase = _Phase.ANSWER
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is handed to the transport."""
        is_last = self._is_last and not self.pipeline
        super().on_response_complete()
        if is_last:
            self.transport.close()
        if self._phase is _Phase.ANSWER:
            self._phase = _Phase.IDLE

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, or a head that is too large, in the dialect's shape."""
        limit = self._limits.settings.max_header_bytes
        if self._is_head_too_large:
            self._refuse("head_too_large", 431, f"the request line and headers are larger than {limit} bytes")
        else:
            self._refuse("malformed", 400, "the request is not valid HTTP")

    def pause_writing(self) -> None:
        """The client reads more slowly than we write: from now on it must show progress."""
        super().pause_writing()
        self._start_sending_clock()

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        self._stop_sending_clock()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that rests; what of an answer is unread has as long as any other."""
        super().timeout_keep_alive_handler()
        self._start_sending_clock()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._limits.settings.max_header_bytes:
            self._is_head_too_large = True
            raise HttpParserError("the head is too large")  # ends in send_400_response

    def _watch(self, phase: _Phase) -> None:
        """Start the clock of a phase, unless it runs already."""
        if self._watched is phase:
            return
        self._unwatch()
        self._watched = phase
        settings = self._limits.settings
        seconds = settings.header_timeout if phase is _Phase.HEAD else settings.body_timeout
        self._deadline = self.loop.call_later(seconds, self._too_late, phase)

    def _unwatch(self) -> None:
        self._watched = None
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self, phase: _Phase) -> None:
        self._unwatch()
        if phase is _Phase.BODY and (self.flow.read_paused or self.pipeline):  # the wait is ours, not the client's
            self._watch(phase)
        elif phase is _Phase.BODY and self.cycle.response_complete:  # refused unread: there is nothing more to say
            self._limits.refused("body_timeout")
            self.transport.close()
        elif phase is _Phase.BODY:
            seconds = self._limits.settings.body_timeout
            self._refuse("body_timeout", 408, f"the body did not arrive within {seconds:g} seconds")
        elif self._fed_bytes:
            seconds = self._limits.settings.header_timeout
            self._refuse("head_timeout", 408, f"the request's head did not arrive within {seconds:g} seconds")
        else:
            self._limits.refused("head_timeout")
            self.transport.close()

    def _start_sending_clock(self) -> None:
        self._stop_sending_clock()
        left = self.transport.get_write_buffer_size()
        if left:
            seconds = self._limits.settings.send_timeout
            self._send_deadline = self.loop.call_later(seconds, self._check_progress, left)

    def _stop_sending_clock(self) -> None:
        if self._send_deadline is not None:
            self._send_deadline.cancel()
            self._send_deadline = None

    def _check_progress(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if left and before - left < _LEAST_SENT:
            self._limits.refused("send_timeout")
            _reset_on_close(self.transport)
            self.transport.abort()
        else:
            self._start_sending_clock()

    def _refuse(self, cause: str, status: int, message: str) -> None:
        """Answer without the application, and hang up; a request under way is told that its client is gone."""
        self._limits.refused(cause)
        cycle = self.cycle
        under_way = cycle is not None and not cycle.response_complete
        if self.pipeline or (under_way and self._phase is _Phase.HEAD):
            self._end_after_answers()
            return
        if not (under_way and cycle.response_started):
            self.transport.write(_written(status, message, cycle.scope["path"] if under_way else "/"))
        if under_way:
            cycle.disconnected = True
            cycle.message_event.set()
        self.transport.close()
        self._start_sending_clock()

    def _end_after_answers(self) -> None:
        """A later request on this connection went wrong: those before it get their answers, and nothing follows."""
        self._is_last = True
        self._unwatch()
        self.flow.pause_reading()
        if self.pipeline and self._phase is _Phase.BODY:
            self.pipeline.popleft()  # the newest, which is the one at fault


def _reset_on_close(transport: asyncio.Transport) -> None:
    """Let the kernel too forget what it holds for this client, instead of offering it until it is taken."""
    with contextlib.suppress(OSError, AttributeError):
        twin = os.dup(transport.get_extra_info("socket").fileno())  # uvloop's own object takes no options
        with contextlib.closing(socket.socket(fileno=twin)) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _written(status: int, message: str, path: str) -> bytes:
    response: Response = http_error_response(status, message, dialect_of(path), headers={"Connection": "close"})
    head = b"".join(b"%b: %b\r\n" % pair for pair in response.raw_headers)
    return STATUS_LINE[status] + head + b"\r\n" + bytes(response.body)

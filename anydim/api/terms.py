"""Terms: how urgent a request is, how long its client waits, and whose key it carries.

It knows a header, two fields of bodies and where the guard of the keys leaves a key's name; it knows no queue.
"""

from __future__ import annotations

import math
import time
from typing import Final

from starlette.requests import Request

from anydim.api.words import shortened
from anydim.errors import InvalidRequest
from anydim.types import Priority, Terms

TIMEOUT_HEADER: Final = "X-Request-Timeout"


def terms_of(request: Request, priority: str | None = None, timeout: float | None = None) -> Terms:
    """The terms of a request; where header and body both give a time, the shorter one holds.

    Args:
        request: its header X-Request-Timeout is read, and the name of its key.
        priority: the body's `priority`: high, normal or low.
        timeout: the body's `timeout` in seconds from now.

    Raises:
        InvalidRequest: no such priority, or a time that is no number above 0.
    """
    limits = [_header_seconds(request), None if timeout is None else _seconds(timeout, "timeout")]
    given = [limit for limit in limits if limit is not None]
    return Terms(
        priority=Priority.NORMAL if priority is None else _priority(priority),
        deadline=time.monotonic() + min(given) if given else None,
        key=getattr(request.state, "key_name", None) or "",
    )


def _priority(given: str) -> Priority:
    try:
        return Priority(given)
    except ValueError:
        known = ", ".join(Priority)
        raise InvalidRequest(f"priority must be one of {known}, got {shortened(str(given))}", "priority") from None


def _header_seconds(request: Request) -> float | None:
    given = request.headers.get(TIMEOUT_HEADER)
    if given is None:
        return None
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    return _seconds(seconds, TIMEOUT_HEADER, given)


def _seconds(seconds: float, name: str, given: str | None = None) -> float:
    if not (math.isfinite(seconds) and seconds > 0):
        shown = shortened(str(seconds) if given is None else given)
        raise InvalidRequest(f"{name} must be a number of seconds above 0, got {shown}", name)
    return seconds

"""Logs: one line an event on standard error, as text or as JSON. It knows no HTTP and no engine.

What a user sent never gets here by accident: of an exception its type and the lines of code are shown, never its
message, which may quote a text.
"""

from __future__ import annotations

import json
import logging
import time
import traceback
from types import TracebackType
from typing import Any, Final

REQUESTS: Final = "anydim.requests"
NEWS: Final = "anydim.news"
_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def configure_logs(as_json: bool) -> None:
    """Send warnings of this process, requests and news to standard error, in one of two forms."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if as_json else Lines(_TEXT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in (REQUESTS, NEWS):
        logging.getLogger(name).setLevel(logging.INFO)


class Lines(logging.Formatter):
    """Text lines that end with the event's fields; exceptions without their messages."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """The line of one event, before its exception."""
        fields = getattr(record, "fields", {})
        return "".join([super().formatMessage(record), *(f" {name}={value!r}" for name, value in fields.items())])

    def formatException(self, ei: Any) -> str:  # noqa: N802  # logging's name
        """The type of an exception and where it was raised."""
        return _where(*ei)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the fields of ``extra={"fields": {...}}``."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one event."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        event: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[0] is not None:
            event["exception"] = _where(*record.exc_info)
        return json.dumps(event, ensure_ascii=False, default=str)


def _where(kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> str:
    name = kind.__name__ if kind else "an exception"
    return "".join([*traceback.format_tb(trace), name])

"""Values of a request as they may stand in a message: shortened, so that no text of a user travels far."""

from __future__ import annotations

from typing import Final

_MOST_VALUE: Final = 60
_MOST_MESSAGE: Final = 1000


def shortened(value: object, most: int = _MOST_VALUE) -> str:
    """The value in quotes as Python writes it, at most ``most`` characters long."""
    text = repr(value[: most + 1] if isinstance(value, str) else value)
    return text if len(text) <= most else text[: most - 3] + "..."


def bounded(message: str) -> str:
    """A message without its end where it is too long to be read."""
    return message if len(message) <= _MOST_MESSAGE else message[: _MOST_MESSAGE - 3] + "..."

"""Extra: packages that only the quality tools need, imported when they are used. Knows the name of the extra."""

from __future__ import annotations

import importlib
from typing import Any

from anydim.errors import MissingExtra


def need(name: str) -> Any:
    """A package's module.

    Raises:
        MissingExtra: it is not installed; the message names the pip command.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise MissingExtra(f"this needs {package}: pip install 'anydim[quality]'") from None

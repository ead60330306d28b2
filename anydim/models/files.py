"""Files of a model folder: JSON objects, and errors that name the file. Knows no model, reads no weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from anydim.errors import ModelError


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model folder.

    Raises:
        ModelError: the file is missing, unreadable, not JSON or not an object.
    """
    try:
        value = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{path.parent} is not a model folder: it has no {path.name}") from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ModelError(f"{path} is not valid JSON ({error}): was the download cut off?") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds no JSON object")
    return value


def read_optional_json(path: Path) -> dict[str, Any]:
    """The same, empty where there is no such file."""
    return read_json(path) if path.exists() else {}


def positive_integer(config: Mapping[str, Any], key: str, folder: Path) -> int:
    """A key of config.json that must be a positive integer.

    Raises:
        ModelError: it is not.
    """
    value = config.get(key)
    if not isinstance(value, int) or value < 1:
        raise ModelError(f"{folder / 'config.json'}: {key} must be a positive integer, got {value!r}")
    return value


def read_modules(folder: Path) -> dict[str, str]:
    """Class -> folder of the sentence-transformers modules, in order; empty for a plain Hugging Face folder.

    Raises:
        ModelError: modules.json is broken.
    """
    path = folder / "modules.json"
    if not path.exists():
        return {}
    try:
        rows = msgspec.json.decode(path.read_bytes(), type=list[dict[str, Any]])
        return {str(row["type"]).rsplit(".", 1)[-1]: str(row.get("path", "")) for row in rows}
    except (OSError, msgspec.DecodeError, KeyError) as error:
        raise ModelError(f"{path} is not a list of sentence-transformers modules ({error})") from error

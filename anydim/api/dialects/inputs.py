"""Inputs: the several ways in which clients hand over texts, as one list. It knows JSON's types and no dialect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from anydim.api.body import wrong_type
from anydim.errors import InvalidRequest
from anydim.intake.request import Truncate


def list_of(given: str | list[Any], field: str) -> Sequence[str] | Sequence[Sequence[int]]:
    """Texts or lists of ids; a single text or list of ids becomes a list of one, an object with a `text` that text.

    Raises:
        InvalidRequest: the entries are of several types, or an object has no text.
    """
    if isinstance(given, str):
        return [given]
    if any(isinstance(entry, dict) for entry in given):
        given = [_text(entry, f"{field}[{place}]") for place, entry in enumerate(given)]
    kinds = {type(entry) for entry in given}
    if len(kinds) > 1:
        first = type(given[0])
        index = next(index for index, entry in enumerate(given) if type(entry) is not first)
        raise wrong_type(f"{field}[{index}]", [_name(first)], _name(type(given[index])))
    return cast(Sequence[Sequence[int]], [given] if kinds == {int} else given)


def truncation(given: bool | str | None, otherwise: Truncate = Truncate.NONE) -> Truncate:
    """What becomes of long texts: a place to cut, or true and false for end and none."""
    if isinstance(given, str):
        return Truncate(given)
    if given is None:
        return otherwise
    return Truncate.END if given else Truncate.NONE


def _text(entry: Any, field: str) -> Any:
    if not isinstance(entry, dict):
        return entry
    if not isinstance(entry.get("text"), str):
        raise InvalidRequest(f"{field} is an object without a text", field)
    return entry["text"]


def _name(kind: type) -> str:
    return {str: "string", int: "integer"}.get(kind, "array")

"""Filters: what a search asks of metadata -> conditions that every database can check.

A condition on a field holds only for chunks that have the field. It knows fields and their kinds; it knows no database.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from anydim.config import nearest
from anydim.errors import InvalidRequest
from anydim.retrieval.layout import Kind, kind_of, words_of

Operator = Literal["=", "!=", "<", "<=", ">", ">=", "in"]
Where = Mapping[str, Any] | Sequence[str]

_SPELLED: Final = re.compile(r"\s*(?P<field>.+?)\s*(?P<operator>!=|<=|>=|=|<|>)\s*(?P<value>.*?)\s*", re.DOTALL)
_OPERATORS: Final = ("=", "!=", "<", "<=", ">", ">=", "in")
_PARAM: Final = "where"


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison; ``value`` has the field's kind, and is a tuple for ``in``."""

    field: str
    operator: Operator
    value: Any


def conditions_of(where: Where | None, fields: Mapping[str, Kind]) -> tuple[Condition, ...]:
    """Read a filter; all of its conditions must hold.

    Args:
        where: ``{"lang": "en", "year": {">=": 2020}, "tag": ["a", "b"]}``, or words such as ``year>=2020``.
        fields: the kinds of the index's fields.

    Raises:
        InvalidRequest: a field is unknown (the nearest known is named), or is compared with another kind of value.
    """
    if not where:
        return ()
    if isinstance(where, str):
        where = [where]
    pairs = _of_mapping(where) if isinstance(where, Mapping) else _of_words(where, fields)
    return tuple(_checked(condition, fields) for condition in pairs)


def _of_mapping(where: Mapping[str, Any]) -> Iterator[Condition]:
    for name, value in where.items():
        if isinstance(value, list | tuple):
            yield Condition(name, "in", tuple(value))
        elif not isinstance(value, Mapping):
            yield Condition(name, "=", value)
        else:
            for operator, inner in value.items():
                if operator not in _OPERATORS:
                    raise InvalidRequest(f"where: {operator!r} is none of {', '.join(_OPERATORS)}", _PARAM)
                yield Condition(name, operator, tuple(inner) if isinstance(inner, list | tuple) else inner)


def _of_words(where: Sequence[str], fields: Mapping[str, Kind]) -> Iterator[Condition]:
    for words in where:
        found = _SPELLED.fullmatch(words)
        if found is None:
            raise InvalidRequest(f"where: {words!r} is not FIELD=VALUE (or !=, <, <=, >, >=)", _PARAM)
        kind = fields.get(found["field"])
        operator: Any = found["operator"]
        yield Condition(found["field"], operator, _value(found["value"], kind, found["field"]))


def _value(word: str, kind: Kind | None, name: str) -> Any:
    if kind == "boolean" and word.lower() in ("true", "false"):
        return word.lower() == "true"
    if kind == "number":
        number = _number(word)
        if number is None:
            raise InvalidRequest(f"where: {name} is a number in this index, got {word!r:.60}", _PARAM)
        return number
    return word


def _number(word: str) -> float | None:
    try:
        number = float(word)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _checked(condition: Condition, fields: Mapping[str, Kind]) -> Condition:
    name, kind = condition.field, fields.get(condition.field)
    if kind is None:
        known = ", ".join(sorted(fields)) or "none"
        guess = nearest(name, list(fields))
        raise InvalidRequest(f"where: no document has a field {name!r:.60}{guess}; known: {known}", _PARAM)
    if condition.operator == "in" and not (isinstance(condition.value, tuple) and condition.value):
        raise InvalidRequest(f"where: {name} in needs a list of values", _PARAM)
    values = condition.value if condition.operator == "in" else (condition.value,)
    for value in values:
        if kind_of(value) != kind:
            raise InvalidRequest(f"where: {name} is {words_of(kind)} in this index, got {value!r:.60}", _PARAM)
    if kind != "number" and condition.operator in ("<", "<=", ">", ">="):
        raise InvalidRequest(f"where: {name} is {words_of(kind)}; {condition.operator} compares numbers", _PARAM)
    return condition

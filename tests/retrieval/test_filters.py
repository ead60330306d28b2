"""Filters: what is understood, what is refused and in which words."""

from typing import Any

import pytest

from anydim.errors import InvalidRequest
from anydim.retrieval.filters import Condition, conditions_of

FIELDS: Any = {"lang": "text", "year": "number", "open": "boolean", "a = b": "text"}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, ()),
        ({}, ()),
        ({"lang": "en"}, (Condition("lang", "=", "en"),)),
        ({"lang": ["en", "de"]}, (Condition("lang", "in", ("en", "de")),)),
        ({"year": {">=": 2020, "<": 2024}}, (Condition("year", ">=", 2020), Condition("year", "<", 2024))),
        ({"open": True, "lang": {"!=": "en"}}, (Condition("open", "=", True), Condition("lang", "!=", "en"))),
        (["lang=en", "year >= 2020"], (Condition("lang", "=", "en"), Condition("year", ">=", 2020.0))),
        ("open=TRUE", (Condition("open", "=", True),)),
        (["lang=it's = odd"], (Condition("lang", "=", "it's = odd"),)),
    ],
)
def test_a_filter_becomes_conditions(where: Any, expected: tuple[Condition, ...]) -> None:
    assert conditions_of(where, FIELDS) == expected


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"lnag": "en"}, "no document has a field 'lnag' (did you mean lang?)"),
        ({"lang": 3}, "lang is text in this index, got 3"),
        ({"year": "2020"}, "year is a number in this index"),
        ({"year": True}, "year is a number in this index"),
        ({"open": 1}, "open is true or false in this index"),
        ({"lang": None}, "lang is text in this index, got None"),
        ({"lang": []}, "lang in needs a list of values"),
        ({"lang": {">": "en"}}, "> compares numbers"),
        ({"lang": {"like": "e%"}}, "'like' is none of"),
        (["year"], "is not FIELD=VALUE"),
        (["year=soon"], "year is a number in this index, got 'soon'"),
        (["year>nan"], "year is a number in this index, got 'nan'"),
        (["open=perhaps"], "open is true or false"),
    ],
)
def test_a_wrong_filter_is_refused_by_its_field(where: Any, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        conditions_of(where, FIELDS)
    assert words in caught.value.message
    assert caught.value.param == "where"

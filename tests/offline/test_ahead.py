"""Ahead: one element is made at a time, what goes wrong arrives, and a source that is silent holds nobody up."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from anydim.offline.ahead import is_left_behind, made_ahead


def ended() -> bool:
    """Whether the thread comes to its end, in reasonable time."""
    deadline = time.monotonic() + 30
    while is_left_behind() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not is_left_behind()


def test_elements_come_in_order_and_none_that_was_not_asked_for() -> None:
    made = []

    def source() -> Iterator[int]:
        for number in range(1, 4):
            made.append(number)
            yield number

    with made_ahead(source()) as begin:
        assert begin().result() == 1
        assert made == [1]
        assert [begin().result() for _ in range(3)] == [2, 3, None]
    assert ended()


def test_what_the_source_raises_arrives() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError("at the second")

    with made_ahead(source()) as begin:
        assert begin().result() == 1
        with pytest.raises(ZeroDivisionError, match="at the second"):
            begin().result()
    assert ended()


def test_a_source_that_waits_is_left_behind_until_it_goes_on() -> None:
    goes_on = threading.Event()

    def source() -> Iterator[int]:
        goes_on.wait(60)
        yield 1

    with made_ahead(source()) as begin:
        begin()
    assert is_left_behind()
    goes_on.set()
    assert ended()

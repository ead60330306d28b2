"""The queue hands out token budgets in order of arrival, refuses what is too much, and forgets the cancelled."""

from __future__ import annotations

from concurrent.futures import Future

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anydim.engine.queue import Queue, Ticket
from anydim.errors import Overloaded, Unavailable
from anydim.types import Item, Output


def ticket(*lengths: int) -> Ticket:
    return Ticket([Item(np.zeros(length, np.int32), 32) for length in lengths], Future())


@given(st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=5), min_size=1, max_size=20), st.integers(1, 60))
def test_batches_fit_the_budget_and_keep_the_order(submissions: list[list[int]], budget: int) -> None:
    queue = Queue(10**6)
    for lengths in submissions:
        queue.put(ticket(*lengths))
    order = []
    while batch := queue.take(budget, wait=False):
        sizes = [len(entry.item.ids) for entry in batch]
        assert sum(sizes) <= budget or len(sizes) == 1
        order += sizes
    assert order == [length for lengths in submissions for length in lengths]
    assert queue.tokens == 0


def test_a_full_queue_refuses_with_the_counts() -> None:
    queue = Queue(100)
    queue.put(ticket(60))
    with pytest.raises(Overloaded, match="60 tokens wait, 50 more would pass the limit of 100"):
        queue.put(ticket(50))
    queue.put(ticket(40))


def test_an_empty_queue_takes_a_submission_of_any_size() -> None:
    queue = Queue(100)
    queue.put(ticket(400))
    assert len(queue.take(100, wait=False)) == 1


def test_cancelled_submissions_are_skipped_and_free_their_place() -> None:
    queue = Queue(100)
    left = ticket(50)
    queue.put(left)
    stays = ticket(40)
    queue.put(stays)
    left.future.cancel()
    assert [entry.ticket for entry in queue.take(1000, wait=False)] == [stays]
    assert queue.tokens == 0


def test_a_closed_queue_refuses_and_still_hands_out_what_waits() -> None:
    queue = Queue(100)
    queue.put(ticket(10))
    queue.close()
    with pytest.raises(Unavailable):
        queue.put(ticket(10))
    assert len(queue.take(100, wait=True)) == 1
    assert queue.take(100, wait=True) == []


def test_a_ticket_answers_once_all_its_items_are_there_in_order() -> None:
    wanted = ticket(1, 1)
    first, second = (Output(np.full(1, value, np.float32)) for value in (1.0, 2.0))
    wanted.answer(1, second)
    assert not wanted.future.done()
    wanted.answer(0, first)
    assert wanted.future.result() == [first, second]


def test_cancelled_submissions_make_room_before_anyone_is_refused() -> None:
    queue = Queue(100)
    for _ in range(9):
        left = ticket(10)
        queue.put(left)
        left.future.cancel()
    queue.put(ticket(60))
    assert queue.tokens <= 70
    queue.put(ticket(40))

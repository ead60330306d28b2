"""The queue loses nothing, starves nobody, keeps its budgets and shares, and lets go of what nobody waits for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anydim.engine.work import Ticket
from anydim.errors import DeadlineExceeded, Overloaded, Unavailable
from anydim.types import Item, Output, Priority, Terms
from tests.engine.queues import DONE, POLICY, Site, site, sizes

submissions = st.lists(
    st.tuples(
        st.lists(st.integers(1, 90), min_size=1, max_size=5),
        st.sampled_from(["", "a", "b", "c"]),
        st.sampled_from(Priority),
    ),
    min_size=1,
    max_size=25,
)


@given(submissions)
def test_everything_is_answered_once_and_every_batch_keeps_its_budget(
    given_work: list[tuple[list[int], str, Priority]],
) -> None:
    here = site()
    tickets = [here.put(*lengths, key=key, priority=priority) for lengths, key, priority in given_work]
    answered: Counter[tuple[int, int]] = Counter()
    while here.queue.tokens:
        taken = here.take()
        assert taken.works
        short_there = any(
            len(ticket.items) and POLICY.is_short(ticket.tokens, ticket.items[0].terms.priority) for ticket in tickets
        )
        most = POLICY.slice_tokens if taken.is_bulk and short_there else POLICY.batch_tokens
        assert sum(sizes(taken)) <= most or len(taken.works) == 1
        for work in taken.works:
            for claim in here.queue.settle(work):
                answered[id(claim.ticket), claim.place] += 1
                claim.ticket.answer(claim.place, DONE)
        here.queue.done(taken)
    assert answered == Counter({(id(t), place): 1 for t in tickets for place in range(len(t.items))})
    assert all(len(ticket.future.result(0)) == len(ticket.items) for ticket in tickets)
    assert here.queue.texts == 0


def test_short_work_goes_first_and_bulk_between_it_in_slices() -> None:
    here = site()
    here.put(*[40] * 4)
    here.put(5)
    assert sizes(here.take()) == [5]
    bulk = here.take()
    assert (bulk.is_bulk, sizes(bulk)) == (True, [40, 40])
    assert here.take().works == []  # one slice at a time
    here.put(6)
    here.put(7)
    short = here.take()
    assert (short.is_bulk, sizes(short)) == (False, [6, 7])
    here.queue.done(bulk)
    assert here.take().is_bulk


def test_short_work_that_comes_between_two_slices_goes_first_up_to_a_quarter_of_a_slice() -> None:
    here = site()
    here.put(*[40] * 8)
    here.put(5)
    here.run()
    here.run()  # a slice
    for length in (6, 7, 8):  # each comes while the one before runs: 20 tokens of a slice of 80
        here.put(length)
        taken = here.take()
        assert (taken.is_bulk, sizes(taken)) == (False, [length])
        here.queue.done(taken)
    here.put(9)
    assert here.take().is_bulk


def test_bulk_alone_runs_in_full_batches() -> None:
    here = site()
    here.put(*[40] * 20)
    assert sizes(here.take()) == [40] * 5
    assert sizes(here.take()) == [40] * 5


def test_bulk_runs_in_full_batches_again_some_time_after_the_last_short_work() -> None:
    here = site()
    here.put(5)
    here.run()
    here.put(*[40] * 20)
    assert sizes(here.take()) == [40, 40]
    here.clock.now += 60
    assert sizes(here.take()) == [40] * 5


def put_group(here: Site, group: int, lengths: Sequence[int]) -> None:
    """Texts of ones, so that equal lengths are equal texts."""
    terms = Terms(Priority.LOW)
    here.queue.put(
        Ticket([Item(np.ones(length, np.int32), 32, terms=terms, group=group) for length in lengths], Future())
    )


def run_groups(groups: Sequence[tuple[Sequence[int], int]]) -> dict[int, list[list[int]]]:
    """The batches of each group, where each comes after so many batches of those before."""
    here, found, waiting = site(), defaultdict(list), [*enumerate(groups, 1)]
    batches = 0
    while waiting or here.queue.texts:
        if waiting and (batches >= waiting[0][1][1] or not here.queue.texts):
            group, (lengths, _) = waiting.pop(0)
            put_group(here, group, lengths)
            continue
        taken = here.take()
        assert len({work.item.group for work in taken.works}) == 1
        found[taken.works[0].item.group].append(sizes(taken))
        for work in taken.works:
            here.queue.settle(work)
        here.queue.done(taken)
        batches += 1
    return found


@given(st.lists(st.tuples(st.lists(st.integers(1, 90), min_size=1, max_size=12), st.integers(0, 9)), max_size=5))
def test_the_batches_of_a_group_depend_on_it_alone(groups: list[tuple[list[int], int]]) -> None:
    together = run_groups(groups)
    for group, (lengths, _) in enumerate(groups, 1):
        assert together[group] == run_groups([(lengths, 0)])[1]


@given(st.integers(1, 8), st.integers(1, 6))
def test_no_short_work_waits_for_more_than_one_slice(arrivals: int, length: int) -> None:
    here = site()
    here.put(*[40] * 50)
    here.put(length)
    slices_since: dict[Ticket, int] = {}
    for _ in range(30):
        for _ in range(arrivals):
            slices_since[here.put(length)] = 0
        taken = here.take()
        for work in taken.works:
            for claim in here.queue.settle(work):
                assert slices_since.pop(claim.ticket, 0) <= 1
        if taken.is_bulk:
            slices_since = {ticket: count + 1 for ticket, count in slices_since.items()}
        here.queue.done(taken)


@given(st.integers(2, 12))
def test_bulk_does_not_starve_beside_an_endless_stream_of_short_work(arrivals: int) -> None:
    here = site()
    bulk = here.put(*[40] * 6)
    for _ in range(40):
        for _ in range(arrivals):
            here.put(10)
        here.run()
    assert bulk.future.done()


@given(st.sampled_from(Priority), st.integers(1, 300))
def test_nothing_is_overtaken_for_longer_than_a_few_age_limits(priority: Priority, length: int) -> None:
    here = site()
    first = here.put(length, priority=priority)
    turns = 0
    while not first.future.done():
        here.clock.now += 0.5
        here.put(90, priority=Priority.HIGH)  # one batch a turn, always more urgent
        here.run()
        turns += 1
        assert turns * 0.5 <= 7 * POLICY.age_limit


def test_priorities_decide_among_work_of_one_size() -> None:
    here = site()
    tickets = {level: here.put(150, priority=level) for level in (Priority.LOW, Priority.NORMAL, Priority.HIGH)}
    order = [here.run()[0][0] for _ in range(3)]
    assert order == [tickets[level] for level in (Priority.HIGH, Priority.NORMAL, Priority.LOW)]


def test_low_priority_is_bulk_whatever_its_size() -> None:
    here = site()
    here.put(3, priority=Priority.LOW)
    assert here.take().is_bulk


@given(
    st.lists(st.integers(1, 80), min_size=40, max_size=120),
    st.lists(st.integers(1, 80), min_size=40, max_size=120),
    st.integers(1, 12),
)
def test_keys_with_work_get_equal_shares_in_tokens(a: list[int], b: list[int], width: int) -> None:
    here = site()
    for start in range(0, len(a), width):
        here.put(*a[start : start + width], key="a", priority=Priority.LOW)
    for length in b:
        here.put(length, key="b", priority=Priority.LOW)
    got = Counter({"a": 0, "b": 0})
    left = Counter({"a": sum(a), "b": sum(b)})
    while min(left.values()) > 0:
        taken = here.take()
        for work in taken.works:
            got[work.key] += work.tokens
            left[work.key] -= work.tokens
            if min(left.values()) > 0:
                assert abs(got["a"] - got["b"]) <= 2 * (80 + POLICY.slice_tokens // 8)
        here.queue.done(taken)


def test_a_new_key_is_served_in_the_next_batch_whatever_others_have_queued() -> None:
    here = site()
    for key in ("a", "b", "c"):
        here.put(*[20] * 100, key=key)
    here.run()
    late = here.put(*[20] * 100, key="late")
    assert late in {ticket for ticket, _ in here.run()}


def test_a_full_queue_refuses_with_the_counts_and_says_when_to_come_back() -> None:
    here = site(replace(POLICY, queue_tokens=100), rate=10.0)
    here.put(60)
    with pytest.raises(Overloaded, match="60 tokens wait, 70 more would pass the limit of 100") as refused:
        here.put(70)
    assert refused.value.retry_after == 3.0
    here.put(40)
    assert here.counts.errors == {"overloaded": 1}


def test_short_work_finds_room_in_a_queue_that_bulk_has_filled() -> None:
    here = site(replace(POLICY, queue_tokens=1000))
    here.put(*[50] * 20)
    with pytest.raises(Overloaded):
        here.put(50)
    here.put(5)


def test_one_key_leaves_room_for_others() -> None:
    here = site(replace(POLICY, queue_tokens=1000))
    for _ in range(16):
        here.put(50, key="a")
    with pytest.raises(Overloaded, match="800 of them of key a"):
        here.put(50, key="a")
    here.put(50, key="b")


def test_an_empty_queue_takes_a_submission_of_any_size() -> None:
    here = site(replace(POLICY, queue_tokens=100))
    here.put(400)
    assert sizes(here.take()) == [400]


def test_a_cancelled_submission_frees_its_place_at_once() -> None:
    here = site(replace(POLICY, queue_tokens=100))
    left = here.put(90)
    left.future.cancel()
    assert here.queue.tokens == 0
    stays = here.put(90)
    assert [work.claims[0].ticket for work in here.take().works] == [stays]
    assert here.counts.errors == {"cancelled": 1}


def test_work_past_its_deadline_is_answered_and_never_run() -> None:
    here = site()
    late, stays = here.put(30, 30, seconds=5), here.put(30)
    here.clock.now += 6
    assert [ticket for ticket, _ in here.run()] == [stays]
    assert isinstance(late.future.exception(0), DeadlineExceeded)
    assert here.queue.tokens == 0
    assert here.counts.errors == {"deadline": 1}


def test_a_deadline_that_has_passed_already_is_refused() -> None:
    here = site()
    with pytest.raises(DeadlineExceeded):
        here.put(30, seconds=-1)


def test_a_closed_queue_refuses_and_still_hands_out_what_waits() -> None:
    here = site()
    here.put(10)
    here.queue.close()
    with pytest.raises(Unavailable):
        here.put(10)
    assert len(here.queue.take().works) == 1
    assert here.queue.take().works == []


def test_a_ticket_answers_once_all_its_items_are_there_in_order() -> None:
    wanted = site().put(1, 1)
    first, second = (Output(np.full(1, value, np.float32)) for value in (1.0, 2.0))
    wanted.answer(1, second)
    assert not wanted.future.done()
    wanted.answer(0, first)
    assert wanted.future.result() == [first, second]

"""The queue under any sequence of arrivals, departures, passing time and batches."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from anydim.engine.queue import Taken
from anydim.engine.work import Answer, Ticket, hand_out
from anydim.types import Priority
from tests.engine.queues import DONE, site


class QueueMachine(RuleBasedStateMachine):
    """Arrivals, cancellations, passing time and batches in any order: nothing is lost, nothing is counted twice."""

    def __init__(self) -> None:
        super().__init__()
        self.here = site()
        self.open: dict[Ticket, int] = {}
        self.running: list[Taken] = []

    @rule(
        lengths=st.lists(st.integers(1, 90), min_size=1, max_size=4),
        key=st.sampled_from(["", "a", "b"]),
        priority=st.sampled_from(Priority),
        seconds=st.sampled_from([0, 3]),
    )
    def arrive(self, lengths: list[int], key: str, priority: Priority, seconds: float) -> None:
        ticket = self.here.put(*lengths, key=key, priority=priority, seconds=seconds)
        self.open[ticket] = len(lengths)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(list(self.open)))
        ticket.future.cancel()

    @rule(seconds=st.floats(0, 4))
    def wait(self, seconds: float) -> None:
        self.here.clock.now += seconds

    @precondition(lambda self: len(self.running) < 2)
    @rule()
    def take(self) -> None:
        taken = self.here.take()
        if taken.works:
            self.running.append(taken)

    @precondition(lambda self: self.running)
    @rule()
    def answer(self) -> None:
        taken = self.running.pop(0)
        hand_out([Answer(work, self.here.queue.settle(work), DONE) for work in taken.works], None)
        self.here.queue.done(taken)

    @invariant()
    def counts_are_exact(self) -> None:
        waiting = {work for ticket in self.open for work in ticket.works if work.waits}
        assert self.here.queue.tokens == sum(work.tokens for work in waiting)
        assert self.here.queue.texts == len(waiting)

    def teardown(self) -> None:
        while self.running:
            self.answer()
        while self.here.queue.tokens:
            assert self.here.run() or not self.here.queue.tokens
        assert all(ticket.future.done() for ticket in self.open)
        assert not self.here.queue._under_way
        assert not self.here.queue._held


TestQueueMachine = QueueMachine.TestCase


@given(st.randoms(use_true_random=False))
def test_any_mixture_of_keys_priorities_and_deadlines_is_worked_off(draw: Random) -> None:
    here = site()
    tickets = []
    for _ in range(80):
        for _ in range(draw.randint(0, 4)):
            lengths = [draw.randint(1, 90) for _ in range(draw.randint(1, 4))]
            key, priority = draw.choice("abcd"), draw.choice(list(Priority))
            tickets.append(here.put(*lengths, key=key, priority=priority, seconds=draw.choice([0, 0, 2])))
        here.clock.now += draw.random()
        here.run()
    while here.queue.tokens:
        here.run()
    assert all(ticket.future.done() for ticket in tickets)

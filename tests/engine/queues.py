"""A queue with a clock that the test moves, and nothing behind it: batches are answered by hand."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from anydim.engine.metrics import EngineCounts
from anydim.engine.policy import Policy
from anydim.engine.queue import Queue, Taken
from anydim.engine.work import Answer, Ticket, hand_out
from anydim.types import Item, Output, Priority, Terms

POLICY = Policy(batch_tokens=200, queue_tokens=10**6, slice_tokens=80, age_limit=2.0)
DONE = Output(np.zeros(1, np.float32))


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Site:
    """A queue with a clock of its own; every text is another one."""

    queue: Queue
    clock: Clock
    counts: EngineCounts
    texts: int = 0

    def put(self, *lengths: int, key: str = "", priority: Priority = Priority.NORMAL, seconds: float = 0) -> Ticket:
        terms = Terms(priority, self.clock.now + seconds if seconds else None, key)
        items = []
        for length in lengths:
            self.texts += 1
            items.append(Item(np.full(length, self.texts, np.int32), 32, terms=terms))
        ticket = Ticket(items, Future())
        self.queue.put(ticket)
        return ticket

    def take(self) -> Taken:
        return self.queue.take()

    def run(self) -> list[tuple[Ticket, int]]:
        """Take a batch and answer it: the places that were answered."""
        taken = self.take()
        places = [(claim.ticket, claim.place) for work in taken.works for claim in work.claims]
        hand_out([Answer(work, self.queue.settle(work), DONE) for work in taken.works], None)
        self.queue.done(taken)
        return places


def site(policy: Policy = POLICY, rate: float = 0.0) -> Site:
    clock, counts = Clock(), EngineCounts()
    return Site(Queue(policy, counts, clock, lambda: rate), clock, counts)


def sizes(taken: Taken) -> list[int]:
    return [work.tokens for work in taken.works]


def limits(batch_tokens: int) -> Policy:
    """A policy for batches of so many tokens, for tests of something else."""
    return Policy(batch_tokens=batch_tokens, queue_tokens=10**6, slice_tokens=batch_tokens)

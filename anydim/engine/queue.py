"""Queue: submissions wait here in order of arrival until the loop takes them, a token budget at a time.

It knows tokens and tickets; it knows no devices and no models. Safe for many threads.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from anydim.errors import AnydimError, Overloaded, Unavailable
from anydim.types import Item, Output


@dataclass(eq=False, slots=True)
class Ticket:
    """One submission: its Items, and the future that gets their Outputs once all are there."""

    items: Sequence[Item]
    future: Future[list[Output]]
    outputs: list[Output | None] = field(init=False)
    missing: int = field(init=False)

    def __post_init__(self) -> None:
        self.outputs = [None] * len(self.items)
        self.missing = len(self.items)

    def answer(self, index: int, output: Output) -> None:
        """Fill one place; the last one answers the submission."""
        self.outputs[index] = output
        self.missing -= 1
        if self.missing == 0:
            with suppress(InvalidStateError):  # cancelled a moment ago
                self.future.set_result([output for output in self.outputs if output is not None])

    def fail(self, error: AnydimError) -> None:
        """Answer the whole submission with an error, unless it is answered."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)


@dataclass(frozen=True, slots=True)
class Entry:
    """One Item of a ticket, on its own way through the batches."""

    ticket: Ticket
    index: int

    @property
    def item(self) -> Item:
        """The Item."""
        return self.ticket.items[self.index]

    def answer(self, output: Output) -> None:
        """Hand the Output to the ticket."""
        self.ticket.answer(self.index, output)


class Queue:
    """First come, first served, bounded in tokens."""

    def __init__(self, most_tokens: int) -> None:
        """Refuse submissions that would bring the queue above ``most_tokens`` tokens; an empty queue takes any."""
        self._most = most_tokens
        self._tokens = 0
        self._entries: deque[Entry] = deque()
        self._closed = False
        self._changed = threading.Condition()

    @property
    def tokens(self) -> int:
        """Tokens that wait."""
        return self._tokens

    def put(self, ticket: Ticket) -> None:
        """Append a submission.

        Raises:
            Overloaded: the queue is full.
            Unavailable: the queue is closed.
        """
        tokens = sum(len(item.ids) for item in ticket.items)
        with self._changed:
            if self._closed:
                raise Unavailable("the server is stopping")
            if self._tokens + tokens > self._most:
                self._forget_cancelled()
            if self._tokens and self._tokens + tokens > self._most:
                raise Overloaded(
                    f"the queue is full: {self._tokens} tokens wait, {tokens} more would pass the limit of {self._most}"
                )
            self._tokens += tokens
            self._entries.extend(Entry(ticket, index) for index in range(len(ticket.items)))
            self._changed.notify()

    def take(self, budget: int, wait: bool) -> list[Entry]:
        """The next entries of at most ``budget`` tokens together (a longer text alone), without cancelled ones.

        Args:
            budget: tokens.
            wait: block until there is something or the queue is closed.

        Returns:
            Nothing where the queue is empty and either ``wait`` is false or the queue is closed.
        """
        with self._changed:
            while True:
                taken = self._pop(budget)
                if taken or not wait or self._closed:
                    return taken
                self._changed.wait()

    def close(self, discard: bool = False) -> None:
        """Refuse new submissions; what waits is still taken, unless ``discard`` cancels it."""
        with self._changed:
            self._closed = True
            for entry in self._entries if discard else ():
                entry.ticket.future.cancel()
            self._changed.notify_all()

    def _forget_cancelled(self) -> None:
        """Give the places of cancelled submissions back; done when room is short, since it walks the queue."""
        self._entries = deque(entry for entry in self._entries if not entry.ticket.future.cancelled())
        self._tokens = sum(len(entry.item.ids) for entry in self._entries)

    def _pop(self, budget: int) -> list[Entry]:
        taken: list[Entry] = []
        room = budget
        while self._entries:
            entry = self._entries[0]
            size = len(entry.item.ids)
            dropped = entry.ticket.future.cancelled()
            if not dropped and taken and size > room:
                break
            self._entries.popleft()
            self._tokens -= size
            if not dropped:
                taken.append(entry)
                room -= size
        return taken

"""Work: what waits in the queue. A submission becomes a Ticket, and each different text of it a Work.

Equal texts share one Work: each place that wants its vector is a Claim. It knows Items and Outputs; it knows no order,
no lanes and no devices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Final, NamedTuple

from anydim.errors import AnydimError
from anydim.types import Item, Output

_ONE_MODEL: Final = 0
_TOKENS: Final = "\0tokens"

Derive = Callable[[Sequence[Item], Sequence[Output]], list[Output]]
"""Items, and the raw Outputs of their texts, to the Outputs that the Items ask for."""

TextKey = tuple[object, ...]
"""What two Items have in common that can share a forward."""

_FORM: Final = ("dim", "dtype", "normalize")
_SOURCE: Final = tuple(each.name for each in fields(Item) if each.name not in (*_FORM, "ids", "terms"))

form_of: Final[Callable[[Item], object]] = attrgetter(*_FORM)
"""How an Item wants the vector of its text."""


def key_of(item: Item) -> TextKey:
    """The text of an Item: its token ids, and every field that is neither form nor terms."""
    return item.ids.tobytes(), *(getattr(item, name) for name in _SOURCE)


def share_of(item: Item) -> str:
    """Whose share of the device an Item takes: that of its key, or a part of it.

    Parts of their own have each model but the first, and vectors a token, which go into no batch with others. Groups,
    which do not either, have none: those of a key go one after another.
    """
    if item.model == _ONE_MODEL and not item.each_token:
        return item.terms.key
    return f"{item.terms.key}\0{item.model}{_TOKENS if item.each_token else ''}"


def owner_of(share: str) -> str:
    """The key behind a share."""
    return share.partition("\0")[0]


@dataclass(eq=False, slots=True, weakref_slot=True)
class Ticket:
    """One submission: its Items, and the future that gets their Outputs once all are there.

    Attributes:
        items: the Items.
        future: what the submitter waits for.
        known: Outputs that need no forward, by place.
        per_token: what a token of its model costs, in tokens of the first model.
        open: the other places.
        tokens: what the Items at the open places cost, in tokens of the first model.
        deadline: the earliest deadline of its Items, or None.
        works: what the queue made of the open places, until it is answered.
    """

    items: Sequence[Item]
    future: Future[list[Output]]
    known: Mapping[int, Output] = field(default_factory=dict)
    per_token: float = 1.0
    open: Sequence[int] = field(init=False)
    tokens: int = field(init=False)
    deadline: float | None = field(init=False)
    works: list[Work] = field(init=False)
    _outputs: list[Output | None] = field(init=False)
    _missing: int = field(init=False)

    def __post_init__(self) -> None:
        deadlines = [item.terms.deadline for item in self.items if item.terms.deadline is not None]
        self.open = [place for place in range(len(self.items)) if place not in self.known]
        self.tokens = math.ceil(self.per_token * sum(len(self.items[place].ids) for place in self.open))
        self.deadline = min(deadlines, default=None)
        self.works = []
        self._outputs = [self.known.get(place) for place in range(len(self.items))]
        self._missing = len(self.open)

    def answer(self, index: int, output: Output) -> None:
        """Fill one place; the last one answers the submission."""
        self._outputs[index] = output
        self._missing -= 1
        if self._missing == 0:
            with suppress(InvalidStateError):  # cancelled a moment ago
                self.future.set_result([output for output in self._outputs if output is not None])

    def fail(self, error: AnydimError) -> None:
        """Answer the whole submission with an error, unless it is answered."""
        with suppress(InvalidStateError):
            self.future.set_exception(error)

    def is_late(self, now: float) -> bool:
        """Whether its deadline has passed."""
        return self.deadline is not None and self.deadline <= now


class Claim(NamedTuple):
    """One place of a ticket."""

    ticket: Ticket
    place: int

    @property
    def item(self) -> Item:
        """The Item at that place."""
        return self.ticket.items[self.place]


@dataclass(eq=False, slots=True)
class Work:
    """One text, on its way through the batches.

    Attributes:
        item: what the forward is asked for.
        claims: who wants its vector, each in a form of its own.
        key: the share that pays for it, see ``share_of``.
        tokens: what its forward costs, in tokens of the first model.
        arrived: when it came, on the queue's clock.
        rank: what goes first: the least.
        is_short: whether it goes with short work.
        waits: whether it is still in the queue.
        settled: whether someone has taken its claims, to answer them.
    """

    item: Item
    claims: list[Claim]
    key: str
    tokens: int
    arrived: float
    rank: float
    is_short: bool
    waits: bool = True
    settled: bool = False

    @property
    def length(self) -> int:
        """Its tokens."""
        return len(self.item.ids)

    def fail(self, error: AnydimError) -> None:
        """Answer everyone who waits for it with an error; those that were answered stay so."""
        for claim in self.claims:
            claim.ticket.fail(error)


@dataclass(frozen=True, slots=True)
class Answer:
    """The Output of a work, and who wants it."""

    work: Work
    claims: Sequence[Claim]
    output: Output


def hand_out(answers: Iterable[Answer], derive: Derive | None) -> None:
    """Give each claim the Output in its own form; an error is everybody's."""
    others: list[tuple[Claim, Output]] = []
    for answer in answers:
        form = form_of(answer.work.item)
        for claim in answer.claims:
            if answer.output.error is None and form_of(claim.item) != form:
                others.append((claim, answer.output))
            else:
                claim.ticket.answer(claim.place, answer.output)
    if others:
        assert derive is not None, "forms differ only where they can be derived"
        derived = derive([claim.item for claim, _ in others], [output for _, output in others])
        for (claim, _), output in zip(others, derived, strict=True):
            claim.ticket.answer(claim.place, output)

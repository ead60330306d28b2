"""Queue: what waits for the device, and what goes next.

Work is short or bulk by the tokens of its submission. Within each of the two lanes the keys have fair shares, and a
key's own work goes by rank: its arrival, moved back by its size and its priority, but never by more than a few age
limits, so that nothing starves. Short work runs in batches of its own. While there is short work, bulk work runs in
slices: a bounded number of tokens, one slice at a time, so that short work waits for one slice at most; between two
slices runs the short work that was there when the first of them ended, and what comes meanwhile up to a quarter of a
slice.

Equal texts share one Work while they are under way. It knows tokens, tickets and a clock; it knows no devices and no
models. Safe for many threads.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Final

from anydim.engine.lanes import Lane, Shares
from anydim.engine.metrics import EngineCounts
from anydim.engine.policy import Policy
from anydim.engine.work import Claim, TextKey, Ticket, Work, form_of, key_of, owner_of, share_of
from anydim.errors import DeadlineExceeded, Overloaded, Unavailable
from anydim.types import Item, Output

_QUANTA: Final = 8  # rounds of one key in a slice
_LEAST_SLICE: Final = 256  # tokens; below it a forward on a GPU costs what reading the weights does
_RESERVE: Final = 8  # short work may pass the limit by this part of it
_KEY_SHARE: Final = 4  # one key may hold this many times what it leaves free: four fifths of the queue
_MOST_VECTORS: Final = 4096  # tokens of a batch that gives a vector for each of them: they go home together
_RECENT_SECONDS: Final = 10.0  # after short work, bulk runs in slices for so long
_LEAST_RETRY, _MOST_RETRY = 1.0, 600.0


@dataclass(frozen=True, slots=True)
class Taken:
    """What goes into one batch: short work, or bulk work."""

    works: Sequence[Work]
    is_bulk: bool = False


class Queue:
    """Two lanes, bounded in tokens."""

    def __init__(
        self,
        policy: Policy,
        counts: EngineCounts | None = None,
        clock: Callable[[], float] = time.monotonic,
        rate: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """An open queue.

        Args:
            policy: its limits.
            counts: where it counts.
            clock: seconds; deadlines are on the same clock.
            rate: tokens a second that the device does, 0 where that is not known.
        """
        self._policy = policy
        self._counts = counts or EngineCounts()
        self._clock = clock
        self._rate = rate
        self._short, self._bulk = Lane(is_short=True), Lane(is_short=False)
        self._shares = Shares(max(1, policy.slice_tokens // _QUANTA))
        self._held: dict[str, int] = {}
        self._under_way: dict[TextKey, Work] = {}
        self._closed = False
        self._bulk_running = 0
        self._short_due = 0
        self._bulk_waited = False
        self._short_seen = float("-inf")
        self._changed = threading.Condition()

    @property
    def tokens(self) -> int:
        """Tokens that wait."""
        return self._short.tokens + self._bulk.tokens

    @property
    def texts(self) -> int:
        """Texts that wait."""
        return len(self._short) + len(self._bulk)

    def put(self, ticket: Ticket, wake: bool = True) -> None:
        """Add the open places of a submission; what equals a text under way joins it.

        Args:
            ticket: the submission.
            wake: tell the thread that waits; without it whoever puts it takes it too.

        Raises:
            Overloaded: the queue is full.
            DeadlineExceeded: nobody waits for it any more.
            Unavailable: the queue is closed.
        """
        with self._changed:
            self._counts.submissions += 1
            now = self._clock()
            self._admit(ticket, now)
            self._counts.texts += len(ticket.open)
            priority = ticket.items[0].terms.priority
            rank = self._policy.rank(now, ticket.tokens, priority)
            is_short = self._policy.is_short(ticket.tokens, priority)
            if is_short:
                self._short_seen = now
            for place in ticket.open:
                self._add(Claim(ticket, place), now, rank, is_short)
            if wake:
                self._changed.notify()
        # A future keeps its callbacks: one that held the ticket, which holds the future, would keep both.
        ticket.future.add_done_callback(partial(self._forget, weakref.ref(ticket)))

    def wait(self, until: Callable[[], bool]) -> bool:
        """Block until something waits here, or ``until`` says so; false once the queue is closed and empty instead."""
        with self._changed:
            while not (self.texts or self._closed or until()):
                self._changed.wait()
            return bool(self.texts) or until()

    def wake(self) -> None:
        """Have who waits look again."""
        with self._changed:
            self._changed.notify()

    def take(self) -> Taken:
        """The works of the next batch, without those that nobody waits for; none where nothing may go now."""
        while True:
            late: list[Ticket] = []
            with self._changed:
                taken = self._choose(late)
            for ticket in late:
                ticket.fail(DeadlineExceeded("the time that the request gave has passed while it waited"))
            if taken.works or not late:
                return taken

    def strays(self) -> list[Work]:
        """The works of a batch that Ctrl-C kept from its taker; only for who knows that no other one is under way."""
        with self._changed:
            self._bulk_running = 0
            return [work for work in self._under_way.values() if not work.waits]

    def settle(self, work: Work) -> list[Claim]:
        """The claims of a work whose Output is there, to the first who asks; nothing joins it any more."""
        with self._changed:
            self._close_to_others(work)
            claims = [] if work.settled else work.claims
            work.settled = True
            return claims

    def done(self, taken: Taken) -> None:
        """A batch has left the device."""
        if taken.is_bulk:
            with self._changed:
                self._bulk_running -= 1
                self._short_due = self._due()

    def close(self, discard: bool = False) -> None:
        """Refuse new submissions; what waits is still taken, unless ``discard`` cancels it."""
        with self._changed:
            self._closed = True
            tickets = {claim.ticket for work in self._waiting() for claim in work.claims} if discard else set()
            self._changed.notify_all()
        for ticket in tickets:
            ticket.future.cancel()

    def fail(self, error: Unavailable) -> None:
        """Close, and answer everyone who waits with an error."""
        self.close()
        with self._changed:
            works = self._waiting()
        for work in works:
            work.fail(error)

    def _waiting(self) -> list[Work]:
        return [*self._short.works(), *self._bulk.works()]

    def _admit(self, ticket: Ticket, now: float) -> None:
        if self._closed:
            raise Unavailable("the server is stopping")
        if ticket.is_late(now):
            self._counts.failed("deadline")
            raise DeadlineExceeded("the time that the request gave has passed")
        terms = ticket.items[0].terms
        limit = self._policy.queue_tokens
        if self._policy.is_short(ticket.tokens, terms.priority):
            limit += limit // _RESERVE
        held = self._held_by(terms.key) if terms.key else 0
        excess = self.tokens + ticket.tokens - limit
        if held:
            own = held + ticket.tokens - _KEY_SHARE * (limit - self.tokens)
            excess = max(excess, -(-own // (1 + _KEY_SHARE)))
        if excess <= 0 or not self.tokens:
            return
        self._counts.failed("overloaded")
        whose = f", {held} of them of key {terms.key}" if held else ""
        raise Overloaded(
            f"the queue is full: {self.tokens} tokens wait{whose}, "
            f"{ticket.tokens} more would pass the limit of {limit}",
            self._seconds_for(excess),
        )

    def _held_by(self, key: str) -> int:
        """What waits for a key, of all models."""
        return sum(tokens for share, tokens in self._held.items() if owner_of(share) == key)

    def _seconds_for(self, tokens: int) -> float:
        """How long the device takes for so many tokens, lately."""
        rate = self._rate()
        return min(max(_LEAST_RETRY, tokens / rate), _MOST_RETRY) if rate > 0 else _LEAST_RETRY

    def _add(self, claim: Claim, now: float, rank: float, is_short: bool) -> None:
        item = claim.item
        key = key_of(item)
        work = self._under_way.get(key)
        if work is not None and self._joins(item, work):
            self._counts.deduplicated += 1
            work.claims.append(claim)
            if work.waits and (rank, not is_short) < (work.rank, not work.is_short):
                self._remove(work)
                work.rank, work.is_short, work.key = rank, is_short or work.is_short, share_of(item)
                self._push(work)
        else:
            limits = self._policy.limits(item.model)
            asked = self._policy.raw(item) if self._policy.always_raw and self._policy.has_raw(item) else item
            work = Work(asked, [claim], share_of(item), limits.cost(len(item.ids)), now, rank, is_short)
            self._push(work)
            self._under_way[key] = work  # last: whoever joins a work after Ctrl-C here must find it in its lane
        claim.ticket.works.append(work)

    def _joins(self, item: Item, work: Work) -> bool:
        """Whether a work's Output can answer an Item of the same ids; one that waits is asked for more."""
        if form_of(work.item) == form_of(item):
            return True
        if not self._policy.has_raw(item):
            return False
        raw = self._policy.raw(work.item)
        if work.waits:
            work.item = raw
        return form_of(work.item) == form_of(raw)

    def _push(self, work: Work) -> None:
        if not work.is_short and not len(self._bulk) and not self._bulk_running:
            self._short_due = self._due()  # what waits already goes first
        self._shares.join(work.key)
        self._held[work.key] = self._held.get(work.key, 0) + work.tokens
        (self._short if work.is_short else self._bulk).push(work)

    def _due(self) -> int:
        """Tokens of short work that go before the next slice: what waits, or more where it comes in time."""
        return max(self._short.tokens, self._policy.short_tokens)

    def _remove(self, work: Work) -> None:
        (self._short if work.is_short else self._bulk).remove(work)
        self._held[work.key] -= work.tokens
        if not self._held[work.key]:
            del self._held[work.key]

    def _choose(self, late: list[Ticket]) -> Taken:
        """The next batch; tickets whose deadline has passed go to ``late``."""
        now = self._clock()
        sliced = now - self._short_seen < _RECENT_SECONDS
        bulk_may = bool(len(self._bulk)) and not (sliced and self._bulk_running)
        is_turn_of_bulk = bulk_may and self._bulk_waited and self._short_due <= 0
        if len(self._short) and not is_turn_of_bulk:
            works = self._pop(self._short, None, now, late)
            self._bulk_waited = bool(len(self._bulk))
            self._short_due -= sum(work.tokens for work in works)
            return Taken(works)
        if not bulk_may:
            return Taken([])
        works = self._pop(self._bulk, self._policy.slice_tokens if sliced else None, now, late)
        self._bulk_running += bool(works)
        self._bulk_waited = False
        return Taken(works, is_bulk=True)

    def _pop(self, lane: Lane, slice_tokens: int | None, now: float, late: list[Ticket]) -> list[Work]:
        """Works of one kind that fit into a batch, and into a slice where one is given; each share in its turn.

        A work that is longer than its batch goes alone.
        """
        taken: list[Work] = []
        room = 0
        keys = set(lane.keys())
        is_mixed = bool(self._policy.models)
        while keys:
            # A batch is of one kind: what it takes beyond its share the others get back in their next turns.
            key = self._shares.turn(keys, self._held.keys(), on_credit=bool(taken and is_mixed))
            work = lane.first(key)
            assert work is not None, "keys are those with work in this lane"
            if taken and _kind(work) != _kind(taken[0]):
                keys.discard(key)
                continue
            if taken and work.length > room:
                break
            # Who was cancelled has left already.
            gone = [claim.ticket for claim in work.claims if claim.ticket.is_late(now)]
            if len(gone) < len(work.claims):
                if not taken:
                    room = self._room_for(work, slice_tokens)
                    alike = {other for other in keys if self._kind_of(lane, other) == _kind(work)}
                    is_mixed, keys = is_mixed or len(alike) < len(keys), alike
                self._shares.charge(key, work.tokens, self._held.keys(), owes_all=is_mixed)
                self._counts.queue_seconds.add(now - work.arrived)
                self._remove(work)
                work.waits = False
                taken.append(work)
                room -= work.length
            else:
                self._drop(work)
            late += gone
            if lane.first(key) is None:
                keys.discard(key)
        lane.tidy()
        return taken

    def _room_for(self, work: Work, slice_tokens: int | None) -> int:
        """Tokens of a batch that begins with a work; a slice of a costly model is never so small that it is waste."""
        limits = self._policy.limits(work.item.model)
        most = min(limits.batch_tokens, _MOST_VECTORS) if work.item.each_token else limits.batch_tokens
        if slice_tokens is None:
            return most
        own = slice_tokens if limits.per_token == 1.0 else max(_LEAST_SLICE, int(slice_tokens / limits.per_token))
        return min(most, own)

    def _kind_of(self, lane: Lane, key: str) -> tuple[int, bool, int] | None:
        work = lane.first(key)
        return None if work is None else _kind(work)

    def _forget(self, found: weakref.ref[Ticket], future: Future[list[Output]]) -> None:
        """Let go of a submission's works; give its places back where it was cancelled or has failed while it waited."""
        ticket = found()
        if ticket is None:  # nothing holds it, so none of its works waits
            return
        works, ticket.works = ticket.works, []
        cancelled = future.cancelled()
        if not cancelled and future.exception() is None:
            return
        with self._changed:
            late = ticket.is_late(self._clock())
            if cancelled or late:
                self._counts.failed("deadline" if late else "cancelled")
            for work in works:
                if work.waits:
                    work.claims = [claim for claim in work.claims if claim.ticket is not ticket]
                    if not work.claims:
                        self._drop(work)
            self._short.tidy()
            self._bulk.tidy()

    def _drop(self, work: Work) -> None:
        self._remove(work)
        work.waits = False
        self._close_to_others(work)

    def _close_to_others(self, work: Work) -> None:
        key = key_of(work.item)
        if self._under_way.get(key) is work:
            del self._under_way[key]


def _kind(work: Work) -> tuple[int, bool, int]:
    """What the works of a batch have in common."""
    return work.item.model, work.item.each_token, work.item.group

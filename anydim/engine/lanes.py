"""Lanes: waiting work in order, and the fair shares of the keys that it came with.

A Lane holds one heap a key. Shares decides whose turn it is, by deficit round robin over the keys in tokens (Shreedhar
and Varghese 1995, "Efficient fair queuing using deficit round robin"); a key that was away begins with a full round, as
in RFC 8290. Both lanes of a queue share the accounts, so that what a key gets in one counts in the other. They know
works and keys; they know no limits, no clocks and no threads.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from collections.abc import Collection, Iterator
from typing import Final

from anydim.engine.work import Work

_MOST_ROUNDS: Final = 4  # what a key can save up, in rounds
_MOST_DEAD: Final = 256  # entries of works that left, which are kept until they come up

_Entry = tuple[float, int, Work]


class Lane:
    """Works by key, each key's own in order of rank."""

    def __init__(self, is_short: bool) -> None:
        """An empty lane, for short work or for the rest."""
        self._is_short = is_short
        self._heaps: dict[str, list[_Entry]] = {}
        self._numbers = itertools.count()
        self._entries = 0
        self.tokens = 0
        self.texts = 0

    def __len__(self) -> int:
        return self.texts

    def push(self, work: Work) -> None:
        """Add a work; one that changes its rank or its key is removed and pushed again."""
        heap = self._heaps.setdefault(work.key, [])
        heapq.heappush(heap, (work.rank, next(self._numbers), work))
        self._entries += 1
        self.tokens += work.tokens
        self.texts += 1

    def remove(self, work: Work) -> None:
        """Take out a work that was pushed; the caller then changes its rank or marks that it no longer waits."""
        self.tokens -= work.tokens
        self.texts -= 1

    def keys(self) -> list[str]:
        """The keys that have work here."""
        return [key for key in list(self._heaps) if self.first(key) is not None]

    def first(self, key: str) -> Work | None:
        """The next work of a key."""
        heap = self._heaps.get(key)
        while heap:
            rank, _, work = heap[0]
            if self._is_live(rank, key, work):
                return work
            heapq.heappop(heap)
            self._entries -= 1
        self._heaps.pop(key, None)
        return None

    def works(self) -> Iterator[Work]:
        """All works, in no order."""
        for key, heap in self._heaps.items():
            yield from (work for rank, _, work in heap if self._is_live(rank, key, work))

    def tidy(self) -> None:
        """Forget entries of works that left, once they are more than those that wait."""
        if self._entries > _MOST_DEAD + 2 * self.texts:
            for key, heap in list(self._heaps.items()):
                self._heaps[key] = [entry for entry in heap if self._is_live(entry[0], key, entry[2])]
                heapq.heapify(self._heaps[key])
            self._entries = sum(map(len, self._heaps.values()))

    def _is_live(self, rank: float, key: str, work: Work) -> bool:
        """Whether an entry is a work's last one: it is pushed anew when it changes."""
        return work.waits and (work.is_short, work.rank, work.key) == (self._is_short, rank, key)


class Shares:
    """Accounts in tokens by key, in the order of their turns."""

    def __init__(self, quantum: int) -> None:
        """Give each key ``quantum`` tokens a round."""
        self._quantum = quantum
        self._accounts: OrderedDict[str, int] = OrderedDict()

    def join(self, key: str) -> None:
        """A key has work now; one that was not here begins with a full round, and first."""
        if key not in self._accounts:
            self._accounts[key] = self._quantum
            self._accounts.move_to_end(key, last=False)

    def turn(self, keys: Collection[str], active: Collection[str], on_credit: bool = False) -> str:
        """Whose turn it is among ``keys``; ``active`` are those that have work anywhere.

        With ``on_credit`` no new round begins, which would pay those too who cannot be served now: the one with the
        least debt goes on instead.
        """
        if len(keys) == 1:
            return next(iter(keys))
        while True:
            for key, account in self._accounts.items():
                if account > 0 and key in keys:
                    return key
            if on_credit:
                return max(keys, key=self._accounts.__getitem__)
            self._begin_round(keys, active)

    def charge(self, key: str, tokens: int, active: Collection[str], owes_all: bool = False) -> None:
        """A key got ``tokens``; once its account is used up the others go first.

        With ``owes_all`` all that it got is debt: others wanted the device and could not have it in this batch.
        """
        if len(active) == 1:  # nobody to share with
            self._accounts.clear()
            self._accounts[key] = self._quantum
            return
        # What nobody else wanted is no debt: it ends at this work and a few rounds.
        before = self._accounts[key]
        self._accounts[key] = (before if owes_all else max(before, -_MOST_ROUNDS * self._quantum)) - tokens
        if self._accounts[key] <= 0:
            self._accounts.move_to_end(key)

    def _begin_round(self, keys: Collection[str], active: Collection[str]) -> None:
        """As many rounds at once as bring one of ``keys`` above zero."""
        least = min(-self._accounts[key] for key in keys)
        gain = (least // self._quantum + 1) * self._quantum
        for key in list(self._accounts):
            self._accounts[key] = min(self._accounts[key] + gain, _MOST_ROUNDS * self._quantum)
            if key not in active and self._accounts[key] >= 0:
                del self._accounts[key]  # who is away saves nothing up; debts are paid first

"""Several engines as one: who gets what, what happens to the work of one that ends, and what is told meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anydim.engine.client import EngineClient
from anydim.engine.handle import EngineFacts, Health
from anydim.engine.metrics import EngineCounts, summed
from anydim.engine.replicas import Replicas, as_one
from anydim.errors import Overloaded, Unavailable
from anydim.types import Item, Output

BATCH = 100


class Line:
    """A line to an engine that answers when it is told to."""

    def __init__(self, limit: float = float("inf")) -> None:
        self.load = 0.0
        self.ready = True
        self.taken: list[Sequence[Item]] = []
        self._limit = limit
        self._gate = asyncio.Event()
        self._end: Exception | None = None

    async def run(self, items: Sequence[Item]) -> list[Output]:
        tokens = sum(len(item.ids) for item in items)
        if self.load + tokens > self._limit:
            raise Overloaded("full", retry_after=self.load)
        self.taken.append(items)
        self.load += tokens
        try:
            await self._gate.wait()
        finally:
            self.load -= tokens
        if self._end is not None:
            raise self._end
        return [Output(item.ids.astype(np.float32)) for item in items]

    def answer(self) -> None:
        self._gate.set()

    def end(self) -> None:
        self.ready = False
        self._end = Unavailable("the request was lost")
        self._gate.set()

    def health(self) -> Health:
        return Health(self.ready, self.ready, "" if self.ready else "it is being restarted")

    def facts(self) -> EngineFacts:
        return EngineFacts("cpu", "float32", BATCH)

    def counts(self) -> EngineCounts:
        return EngineCounts(texts=len(self.taken))


def replicas(*lines: Line, slice_tokens: int | None = 8) -> Replicas:
    return Replicas([cast(EngineClient, line) for line in lines], slice_tokens)


def text(length: int, first: int = 0) -> Item:
    return Item(np.arange(first, first + length, dtype=np.int32), 1)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_each_submission_goes_where_there_is_least_to_do() -> None:
    lines = [Line(), Line(), Line()]
    several = replicas(*lines)
    waiting = []
    for length in (30, 5, 20, 4, 6, 25):
        waiting.append(asyncio.ensure_future(several.run([text(length)])))
        await settle()
    assert sorted(sum(len(item.ids) for items in line.taken for item in items) for line in lines) == [20, 30, 40]
    for line in lines:
        line.answer()
    for outputs, length in zip(await asyncio.gather(*waiting), (30, 5, 20, 4, 6, 25), strict=True):
        assert len(outputs[0].values) == length


async def test_idle_engines_see_the_same_text_again() -> None:
    lines = [Line(), Line(), Line()]
    several = replicas(*lines)
    for line in lines:
        line.answer()
    for _ in range(5):
        for first in range(20):
            await several.run([text(5, first)])
    places = [{int(items[0].ids[0]) for items in line.taken} for line in lines]
    assert sum(map(len, places)) == 20  # each text at one engine only
    assert all(places)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(2, 5))
def test_a_large_submission_is_divided_and_answered_in_order(lengths: list[int], count: int) -> None:
    async def check() -> None:
        lines = [Line() for _ in range(count)]
        for line in lines:
            line.answer()
        items = [text(length, 1000 * place) for place, length in enumerate(lengths)]
        outputs = await replicas(*lines).run(items)
        assert [output.values.tolist() for output in outputs] == [item.ids.tolist() for item in items]
        parts = [items for line in lines for items in line.taken]
        assert 1 <= len(parts) <= count
        if sum(lengths) < BATCH:
            assert len(parts) == 1
        if sum(lengths) >= count * BATCH and len(lengths) >= 4 * count:
            assert len(parts) == count

    asyncio.run(check())


async def test_the_work_of_an_engine_that_ends_goes_to_another_one() -> None:
    first, second = Line(), Line()
    several = replicas(first, second)
    first.load = 1.0
    waiting = asyncio.ensure_future(several.run([text(3)]))
    await settle()
    assert second.taken
    second.end()
    first.answer()
    assert len((await waiting)[0].values) == 3
    assert several.health() == Health(True, True, "1 of 2 engines take no requests (engine 1: it is being restarted)")


async def test_what_has_ended_two_engines_does_not_reach_a_third() -> None:
    lines = [Line(), Line(), Line()]
    waiting = asyncio.ensure_future(replicas(*lines).run([text(3)]))
    for _ in range(2):
        await settle()
        next(line for line in lines if line.taken and line.ready).end()
    with pytest.raises(Unavailable, match="lost"):
        await waiting
    assert sum(line.ready for line in lines) == 1


async def test_a_full_engine_is_passed_over_and_all_full_ones_refuse_with_the_shortest_wait() -> None:
    first, second = Line(limit=10), Line(limit=10)
    first.load, second.load = 9.0, 8.5
    second.ready = True
    several = replicas(first, second)
    with pytest.raises(Overloaded) as caught:
        await several.run([text(5)])
    assert caught.value.retry_after == 8.5
    first.load = 9.5
    second.load = 9.6
    first._limit = 100.0
    first.answer()
    assert len(await several.run([text(5)])) == 1


async def test_a_refused_part_takes_the_others_back() -> None:
    first, second = Line(limit=60), Line()
    second.load, first.load = 0.0, 1.0
    several = replicas(first, second)
    second._limit = 80
    with pytest.raises(Overloaded):
        await several.run([text(10, place) for place in range(20)])
    await settle()
    assert (first.load, second.load) == (1.0, 0.0)


async def test_without_any_engine_the_reasons_are_told() -> None:
    lines = [Line(), Line()]
    for line in lines:
        line.ready = False
    several = replicas(*lines)
    assert not several.health().ready
    with pytest.raises(Unavailable, match="engine 0: it is being restarted; engine 1"):
        await several.run([text(3)])


def test_one_engine_is_itself() -> None:
    line: Any = Line()
    assert as_one([line]) is line


def test_counts_add_up() -> None:
    one, other = EngineCounts(texts=3, busy_seconds=1.5, uptime_seconds=9), EngineCounts(texts=4, uptime_seconds=5)
    one.batch_tokens.add(100)
    other.batch_tokens.add(5)
    one.failed("failed")
    other.failed("failed", 2)
    other.failed("deadline")
    both = summed([one, other])
    assert (both.texts, both.busy_seconds, both.uptime_seconds) == (7, 1.5, 9)
    assert (both.batch_tokens.total, sum(both.batch_tokens.counts)) == (105, 2)
    assert both.errors == {"failed": 3, "deadline": 1}

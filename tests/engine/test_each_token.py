"""Vectors a token in the queue: batches of their own, nothing shared with vectors of texts, nothing kept."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest

from anydim import testing
from anydim.engine.cache import VectorCache
from anydim.engine.forms import derive
from anydim.engine.metrics import EngineCounts
from anydim.engine.work import Ticket
from anydim.types import Item, Output
from tests.engine.queues import POLICY, Site, site


def put(here: Site, count: int, length: int, each_token: bool) -> None:
    for _ in range(count):
        here.texts += 1
        item = Item(np.full(length, here.texts, np.int32), 32, each_token=each_token)
        here.queue.put(Ticket([item], Future()))


def kinds(here: Site) -> list[bool]:
    taken = here.queue.take()
    here.queue.done(taken)
    return [work.item.each_token for work in taken.works]


@pytest.mark.parametrize("length", [5, 50])
def test_a_batch_is_of_one_kind_and_both_get_their_turns(length: int) -> None:
    here = site()
    put(here, 1000 // length, length, each_token=True)
    put(here, 1000 // length, length, each_token=False)
    batches = []
    while batch := kinds(here):
        assert len(set(batch)) == 1
        batches.append(batch[0])
    assert set(batches[: len(batches) // 2]) == {True, False}, "neither waits until the other is done"
    assert here.queue.texts == 0


def test_their_batches_are_bounded_since_all_vectors_go_home_together() -> None:
    here = site(replace(POLICY, batch_tokens=16_384, slice_tokens=8192))
    put(here, 10, 1000, each_token=True)
    assert len(kinds(here)) == 4
    put(here, 10, 1000, each_token=False)
    assert max(len(batch) for batch in iter(lambda: kinds(here), [])) > 4


def test_equal_ones_share_a_forward_and_others_do_not() -> None:
    here = site(replace(POLICY, raw_width=64, always_raw=True))
    ids = np.array([1, 2, 3], np.int32)
    each = Item(ids, 32, each_token=True)
    for item in (each, each, Item(ids, 64, each_token=True), Item(ids, 32)):
        here.queue.put(Ticket([item], Future()))
    works = [work for _ in range(3) for work in here.take().works]
    found = sorted((work.item.each_token, work.item.dim, len(work.claims)) for work in works)
    assert found == [(False, 64, 1), (True, 32, 2), (True, 64, 1)]


def test_the_cache_keeps_none() -> None:
    cache = VectorCache(10_000, derive, EngineCounts(), lambda item: not item.each_token)
    each = Item(np.array([1, 2], np.int32), 4, each_token=True)
    cache.add(each, Output(np.ones((2, 4), np.float32)))
    assert cache.find([each]) == {}


async def test_both_kinds_in_one_submission() -> None:
    with testing.engine(vector_cache_mib=1) as engine:
        ids = np.array([97, 98, 97, 256], np.int32)
        text, each, again = await engine.run(
            [Item(ids, 64), Item(ids, 64, normalize=False, each_token=True), Item(ids, 64)]
        )
    assert each.values.shape == (4, 64)
    assert each.values[:, 0].tolist() == [1, 1, 2, 2]
    np.testing.assert_allclose(text.values, each.values[-1] / np.linalg.norm(each.values[-1]), atol=1e-6)
    np.testing.assert_array_equal(again.values, text.values)

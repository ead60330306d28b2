"""Equal texts share a forward while they are under way, and the cache answers those that come again."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace

import numpy as np

from anydim import testing
from anydim.engine.cache import VectorCache
from anydim.engine.engine import Engine
from anydim.engine.forms import derive
from anydim.engine.metrics import EngineCounts
from anydim.engine.work import Ticket
from anydim.errors import ComputeFailed
from anydim.types import Batch, Item, Output, OutputDtype
from tests.engine.queues import POLICY, limits, site
from tests.engine.test_engine import RecordingRunner


def equal(dim: int = 32, dtype: OutputDtype = OutputDtype.FLOAT32, **fields: object) -> Item:
    return Item(np.array([1, 2, 3], np.int32), dim, dtype, **fields)  # type: ignore[arg-type]


def test_equal_texts_share_one_work_and_each_gets_its_answer() -> None:
    here = site()
    tickets = [Ticket([equal(), equal()], Future()) for _ in range(3)]
    for ticket in tickets:
        here.queue.put(ticket)
    assert here.queue.tokens == 3
    tickets[0].future.cancel()
    assert len(here.run()) == 4
    assert all(len(ticket.future.result(0)) == 2 for ticket in tickets[1:])
    assert here.counts.deduplicated == 5


def test_other_forms_of_a_text_join_where_they_can_be_derived() -> None:
    here = site(replace(POLICY, raw_width=64))
    for item in (equal(), equal(dim=64), equal(dtype=OutputDtype.INT8)):
        here.queue.put(Ticket([item], Future()))
    (work,) = here.take().works
    assert (work.item.dim, work.item.dtype, work.item.normalize) == (64, OutputDtype.FLOAT32, False)
    apart = site()
    for item in (equal(), equal(dim=64)):
        apart.queue.put(Ticket([item], Future()))
    assert apart.queue.texts == 2


def test_short_work_takes_an_equal_text_along_out_of_bulk_work() -> None:
    here = site()
    bulk = Ticket([equal(), *(Item(np.full(40, 7 + place, np.int32), 32) for place in range(5))], Future())
    here.queue.put(bulk)
    short = Ticket([equal()], Future())
    here.queue.put(short)
    taken = here.take()
    assert not taken.is_bulk
    assert {claim.ticket for claim in taken.works[0].claims} == {bulk, short}


FORMS = [
    {"output_dim": dim, "output_dtype": dtype, "normalize": normalize}
    for dim in (32, 64)
    for dtype in OutputDtype
    for normalize in (True, False)
]


def test_every_form_comes_out_of_the_cache_as_it_comes_from_the_model() -> None:
    model = testing.FakeModel(width=64)
    texts = ["a text", "Another text, with 3 sentences. Is it? Yes!"]
    with testing.client(model) as plain, testing.client(model, vector_cache_mib=1) as cached:
        for _ in range(2):
            for form in FORMS:
                body = {"input": texts, **form}
                expected, found = (http.post("/v1/embeddings", json=body).json() for http in (plain, cached))
                assert found["data"] == expected["data"]
        counts = cached.get("/metrics").text
    assert f"anydim_engine_cache_hits_total {2.0 * (2 * len(FORMS) - 1)}" in counts
    assert "anydim_engine_cache_misses_total 2.0" in counts


def test_the_cache_keeps_to_its_bound_and_drops_what_was_not_used_longest() -> None:
    counts = EngineCounts()
    cache = VectorCache(1900, derive, counts)
    texts = [Item(np.array([number], np.int32), 4) for number in range(6)]
    for number, text in enumerate(texts):
        cache.add(text, Output(np.full(4, number, np.float32)))
        cache.find(texts[:1])
        assert counts.cache_bytes <= 1900
    assert sorted(cache.find(texts)) == [0, 3, 4, 5]


def test_answers_that_failed_are_not_kept() -> None:
    class Failing(RecordingRunner):
        def finish(self, flight: Batch) -> list[Output]:
            return [Output(np.empty(0, np.float32), error=ComputeFailed("no")) for _ in flight.items]

    policy = replace(limits(100), raw_width=32, always_raw=True)
    with Engine(Failing(), policy, derive=derive, cache_bytes=10**6) as engine:
        assert engine.submit([equal()]).result(30)[0].error is not None
        assert engine.status().counts.cache_bytes == 0
        assert engine.status().counts.errors == {"not_finite": 1}

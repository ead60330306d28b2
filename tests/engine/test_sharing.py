"""Equal texts share a forward while they are under way, and the cache answers those that come again."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace

import numpy as np

from anydim.engine.work import Ticket
from anydim.types import Item, OutputDtype
from tests.engine.queues import POLICY, site


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

"""Several models behind one queue: batches of one model, costs in shares, and nothing shared between their texts."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anydim.config import EngineSettings, ModelSettings
from anydim.engine.engine import Engine
from anydim.engine.limits import ModelLimits
from anydim.engine.load import load_engines
from anydim.engine.wire import pack_items, unpack_items
from anydim.errors import Overloaded
from anydim.intake.request import EmbedRequest, ScoreRequest
from anydim.intake.scoring import ScoreIntake, intake_of
from anydim.models.card import read_card
from anydim.models.cost import token_cost
from anydim.types import Item, Terms
from tests.engine.queues import POLICY, Site, site
from tests.shelf import Shelf

COSTLY = ModelLimits(batch_tokens=100, per_token=16.0)
TWO = replace(POLICY, slice_tokens=4000, models=(ModelLimits(batch_tokens=200), COSTLY))


def put(site: Site, model: int, *lengths: int, key: str = "", same: bool = False) -> None:
    items = []
    for length in lengths:
        site.texts += 0 if same else 1
        items.append(Item(np.full(length, site.texts, np.int32), 32, terms=Terms(key=key), model=model))
    ticket_of(site, items)


def ticket_of(site: Site, items: Sequence[Item]) -> None:
    from anydim.engine.work import Ticket

    per_token = TWO.limits(items[0].model).per_token
    site.queue.put(Ticket(items, Future(), per_token=per_token))


def taken(site: Site) -> list[tuple[int, int]]:
    """Model and length of each text of a batch."""
    batch = site.queue.take()
    site.queue.done(batch)
    return [(work.item.model, work.length) for work in batch.works]


def test_a_batch_is_of_one_model() -> None:
    both = site(TWO)
    for _ in range(3):
        put(both, 0, 10, 10)
        put(both, 1, 10, 10)
    batches = []
    while batch := taken(both):
        batches.append(batch)
    assert all(len({model for model, _ in batch}) == 1 for batch in batches)
    assert sorted(model for batch in batches for model, _ in batch) == [0] * 6 + [1] * 6


def test_each_model_has_its_own_batches() -> None:
    both = site(TWO)
    put(both, 0, *[50] * 8)
    put(both, 1, *[50] * 4)
    sizes: dict[int, list[int]] = {0: [], 1: []}
    while batch := taken(both):
        sizes[batch[0][0]].append(sum(length for _, length in batch))
    assert max(sizes[0]) == 200
    assert max(sizes[1]) == 100


def test_a_costly_model_does_not_starve_the_cheap_one() -> None:
    """Both have as much to do as they like: the device's time, not its tokens, is shared."""
    both = site(replace(TWO, slice_tokens=400))
    put(both, 1, *[10] * 200)
    put(both, 0, *[10] * 4000)
    cost = {0: 0, 1: 0}
    for _ in range(30):
        for model, length in taken(both):
            cost[model] += length * (16 if model else 1)
    assert cost[0] and cost[1]
    assert 0.25 < cost[0] / (cost[0] + cost[1]) < 0.75


def test_the_queue_is_bounded_in_cost() -> None:
    small = site(replace(TWO, queue_tokens=400))
    put(small, 1, 20)  # costs 320
    with pytest.raises(Overloaded):
        put(small, 1, 20)
    put(small, 0, 60)
    assert small.queue.tokens == 380


def test_equal_ids_of_two_models_are_two_texts() -> None:
    both = site(TWO)
    put(both, 0, 10)
    put(both, 1, 10, same=True)
    assert both.queue.texts == 2
    put(both, 1, 10, same=True)
    assert both.queue.texts == 2


def test_the_model_crosses_between_processes() -> None:
    items = [Item(np.arange(5, dtype=np.int32), 32, model=3)]
    submit, payload = pack_items(7, items)
    [found] = unpack_items(submit, memoryview(b"".join(payload)))
    assert found.model == 3


def test_an_8b_token_costs_sixteen_of_the_0_6b_s(tmp_path: Path) -> None:
    from benchmarks import shapes

    cost = {name: token_cost(read_card(shapes.write(name, tmp_path))) for name in ("0.6b", "8b")}
    assert cost["8b"] / cost["0.6b"] == pytest.approx(16, abs=0.3)


@pytest.fixture(scope="module")
def engine(shelf: Shelf) -> Engine:
    rows = [(read_card(shelf.folder(name)), ModelSettings(dtype="float32")) for name in NAMES]
    return load_engines(rows, EngineSettings(device="cpu", threads=1, vector_cache_mib=1), show_progress=False)[0]


NAMES = ("bert-mean", "cross-bert", "qwen3")


def test_three_models_answer_what_each_would_alone(shelf: Shelf, engine: Engine) -> None:
    texts = ["a man is eating", "the capital of China"]
    with engine:
        for _ in range(2):  # the second time the cache answers for those that embed
            futures = []
            for place, name in enumerate(NAMES):
                intake = intake_of(shelf.ours(name).card, ModelSettings(dtype="float32"), place)
                if isinstance(intake, ScoreIntake):
                    futures.append(engine.submit(intake.prepare(ScoreRequest(queries=["who?"], documents=texts))))
                else:
                    futures.append(engine.submit(intake.prepare(EmbedRequest(inputs=texts, output_dim=32))))
            bert, cross, qwen3 = (np.stack([output.values for output in future.result(60)]) for future in futures)
            assert np.abs(bert - shelf.ours("bert-mean").embed(texts, output_dim=32)).max() <= 1e-5
            assert np.abs(cross - shelf.ours("cross-bert").scores("who?", texts, raw=False)).max() <= 1e-5
            assert np.abs(qwen3 - shelf.ours("qwen3").embed(texts, output_dim=32)).max() <= 1e-5
        counts = engine.status().counts
    assert counts.cache_hits == 4

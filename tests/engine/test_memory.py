"""How much of a GPU is taken: the largest batch follows from what forwards take, and what does not fit says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anydim.engine.engine import Engine
from anydim.engine.graphs import BUCKETS, GraphBudget, capture_within
from anydim.engine.memory import Capacity, Workspace, capacity, lack_of_room
from anydim.errors import ConfigError, TooLong
from anydim.types import Batch
from tests.checkpoints import Qwen3Spec, write_qwen3
from tests.engine.queues import limits
from tests.engine.test_engine import RecordingRunner, item
from tests.pipeline import Pipeline

GIB = 1 << 30
KIB = 1 << 10


class Card:
    """A device of so much room, on which a forward takes ``fixed`` bytes and ``per_token`` for each token."""

    def __init__(self, allowed: int, weights: int, fixed: int, per_token: int) -> None:
        self.allowed, self.taken, self._fixed, self._per_token = allowed, weights, fixed, per_token
        self.now = 0
        self.runs: list[int] = []

    def room(self) -> int:
        return self.allowed - self.taken

    def peak(self, work: Callable[[], None]) -> int:
        work()
        return self.now

    def probe(self, tokens: int) -> None:
        self.runs.append(tokens)
        self.now = self._fixed + self._per_token * tokens
        if self.now > self.room():
            raise torch.OutOfMemoryError

    def capacity(self, wanted: int = 16384, asked: bool = False, longest: int = 32768) -> Capacity:
        return capacity(self, self.probe, wanted, asked, longest)


def test_a_large_card_takes_what_helps_and_no_more() -> None:
    card = Card(68 * GIB, 7 * GIB, 40 << 20, 62 * KIB)
    found = card.capacity()
    assert (found.batch_tokens, found.longest) == (16384, None)
    assert found.workspace_bytes == pytest.approx((40 << 20) + 16384 * 62 * KIB, rel=0.001)
    assert (found.weights_bytes, found.allowed_bytes) == (7 * GIB, 68 * GIB)
    assert card.runs[-1] == 16384  # proved
    assert card.capacity(wanted=65536, asked=True).batch_tokens == 65536


def test_a_small_card_takes_what_fits(caplog: pytest.LogCaptureFixture) -> None:
    card = Card(8 * GIB, 7 * GIB, 40 << 20, 62 * KIB)
    found = card.capacity()
    assert 15000 < found.batch_tokens < 16384
    assert found.longest is not None
    assert found.batch_tokens <= found.longest < (GIB - (40 << 20)) // (62 * KIB)
    assert not caplog.messages
    assert card.capacity(wanted=65536, asked=True) == found
    assert "--max-batch-tokens 65536 does not fit" in caplog.text


def test_room_for_longer_texts_than_batches() -> None:
    found = Card(9 * GIB, 7 * GIB, 0, 62 * KIB).capacity(longest=40960)
    assert found.batch_tokens == 16384
    assert found.longest is not None
    assert 31000 < found.longest < 33826


@given(st.integers(1, 1 << 30), st.integers(0, 1 << 26), st.integers(1 << 8, 1 << 17), st.integers(1, 1 << 16))
def test_what_is_promised_runs(room: int, fixed: int, per_token: int, wanted: int) -> None:
    card = Card(room, 0, fixed, per_token)
    try:
        found = card.capacity(wanted, longest=1 << 20)
    except ConfigError:
        assert fixed + per_token * max(2, min(wanted, 64)) > 0.9 * room  # two tokens are the least probe
        return
    card.probe(found.batch_tokens)
    assert found.batch_tokens <= wanted
    if found.longest is not None:
        card.probe(found.longest)
        assert found.longest >= found.batch_tokens


def test_a_card_that_is_full_with_weights_names_the_flag() -> None:
    with pytest.raises(ConfigError, match=r"0\.0 GiB are left of the 8\.0 GiB that --mem-fraction-static allows"):
        Card(8 * GIB, 8 * GIB - (1 << 20), 0, 62 * KIB).capacity()


def test_a_batch_that_takes_more_than_its_line_is_made_smaller() -> None:
    class Bent(Card):
        def probe(self, tokens: int) -> None:
            super().probe(tokens if tokens <= 8192 else 2 * tokens)

    bent = Bent(GIB, 0, 0, 64 * KIB)
    found = bent.capacity()
    assert found.batch_tokens == found.longest
    bent.probe(found.batch_tokens)


def test_measured_lines() -> None:
    line = Workspace.through(2048, 5 * 2048 + 700, 8192, 5 * 8192 + 700)
    assert (line.fixed, line.per_token) == (700, 5)
    assert line.bytes_of(100) == 1200
    assert Workspace.through(2048, 10**6, 8192, 10**6).tokens_in(10**6) < 10**5  # a level line promises no miracle


@pytest.mark.parametrize(
    ("need", "allowed", "free", "smaller", "words"),
    [
        (7, 68, 79, None, None),
        (14, 12, 79, None, ["14.0 GiB", "12.0 GiB of the GPU's 80.0 GiB", "--mem-fraction-static to 0.19 or more"]),
        (14, 68, 10, None, ["70.0 GiB of the GPU's 80.0 GiB are taken by others", "--device cuda:N"]),
        (90, 68, 79, "--dtype bfloat16", ["the GPU has 80.0 GiB", "smaller model; or serve with --dtype bfloat16"]),
    ],
)
def test_weights_that_do_not_fit(need: int, allowed: int, free: int, smaller: str | None, words: list[str]) -> None:
    lack = lack_of_room(need * GIB, allowed * GIB, 80 * GIB, free * GIB, smaller)
    if words is None:
        assert lack is None
    else:
        assert lack is not None
        assert all(word in lack for word in words), lack


def test_a_text_that_does_not_fit_is_refused_at_once_and_others_are_answered() -> None:
    with Engine(RecordingRunner(), limits(1000), longest=3) as engine:
        with pytest.raises(TooLong, match=r"4 tokens, .* up to 3; .*--mem-fraction-static"):
            engine.submit([item(1), item(1, 2, 3, 4)])
        assert engine.submit([item(1, 2, 3)]).result(30)[0].values[0] == 6


@pytest.mark.parametrize("tokens", [1, 5, 64, 333])
def test_a_probing_batch_runs_as_many_tokens_as_asked(tmp_path: Path, tokens: int) -> None:
    pipeline = Pipeline(write_qwen3(tmp_path / "model", Qwen3Spec(layers=1)))
    seen: list[Batch] = []
    send = pipeline.runner._send
    pipeline.runner._send = lambda batch, widest: seen.append(batch) or send(batch, widest)
    pipeline.runner.probe(tokens, 100)
    assert [batch.tokens for batch in seen] == [tokens, tokens]
    assert max(len(item.ids) for item in seen[0].items) <= 100


class Capturing:
    """Graphs that take one second and two MiB each, less where a larger one stands already."""

    def __init__(self) -> None:
        self.order: list[int] = []
        self.seconds = self.bytes = 0

    def capture(self, bucket: int, alone: bool) -> int:
        assert alone == (not self.order)
        self.order.append(bucket)
        self.seconds += 1
        self.bytes += 2 << 20 if alone else 1 << 20
        return bucket

    def within(self, seconds: float, mib: int) -> dict[int, int]:
        budget = GraphBudget(seconds, mib << 20)
        return capture_within(BUCKETS, self.capture, budget, lambda: self.seconds, lambda: self.bytes)


def test_all_graphs_are_captured_where_the_budget_lasts() -> None:
    capturing = Capturing()
    assert sorted(capturing.within(100, 100)) == list(BUCKETS)
    assert capturing.order[:3] == [1024, 16, 32]


def test_short_texts_keep_their_graphs_when_time_or_memory_runs_out() -> None:
    assert list(Capturing().within(2.5, 100)) == [1024, 16, 32]
    assert list(Capturing().within(100, 4)) == [1024, 16, 32]


def test_no_memory_means_no_graphs() -> None:
    assert capture_within((16, 32), lambda bucket, alone: bucket, GraphBudget(9, 0), lambda: 0, lambda: 1) == {}
    assert capture_within((), lambda bucket, alone: bucket, GraphBudget(9, 0), lambda: 0, lambda: 1) == {}

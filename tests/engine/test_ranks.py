"""One model on several ranks in the library: real processes that add up by gloo, and what happens when one dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from numpy.typing import NDArray

from anydim.config import load_settings
from anydim.engine.engine import Engine
from anydim.engine.load import load_engine
from anydim.errors import ConfigError, ModelError, Unavailable
from anydim.models.card import read_card
from anydim.types import Item
from tests.checkpoints import Qwen3Spec, write_qwen3

ODD = Qwen3Spec(width=38, layers=2, heads=12, kv_heads=6, head_dim=18, inner=222, vocab=301, bias=True)
LENGTHS = (1, 3, 77, 200, 8, 77)


@contextmanager
def running(folder: Path, **flags: object) -> Iterator[Engine]:
    settings = load_settings({"model": str(folder), "device": "cpu", "threads": 1, **flags}, {})
    engine, _ = load_engine(read_card(folder), settings.model, settings.engine, show_progress=False)
    try:
        yield engine
    finally:
        engine.close()


def texts(count: int = 1) -> list[Item]:
    draw = np.random.default_rng(5)
    return [Item(draw.integers(0, 301, length, dtype=np.int32), 38) for length in LENGTHS * count]


def vectors(engine: Engine, items: list[Item]) -> NDArray[np.float32]:
    return np.stack([output.values for output in engine.submit(items).result(60)]).astype(np.float32)


def followers() -> list[psutil.Process]:
    family = psutil.Process().children(recursive=True)
    alive = (each for each in family if each.status() != psutil.STATUS_ZOMBIE)
    return [each for each in alive if "anydim.engine.follower" in each.cmdline()]


def test_ranks_of_an_odd_shape_give_the_vectors_of_one_process(tmp_path: Path) -> None:
    folder = write_qwen3(tmp_path / "model", ODD)
    with running(folder, dtype="float32") as alone:
        wanted = vectors(alone, texts())
    with running(folder, dtype="float32", tp=3) as shared:
        assert len(followers()) == 2
        shared._loop._runner._multiply(40)  # what only a start on GPUs does: all ranks in step
        found = vectors(shared, texts())
        again = vectors(shared, texts(10))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(again[: len(LENGTHS)], wanted, atol=1e-5)
    assert followers() == []


def test_bfloat16_ranks_are_as_near_to_float32_as_one_process(tmp_path: Path) -> None:
    folder = write_qwen3(tmp_path / "model", ODD)
    items = texts(4)
    with running(folder, dtype="float32") as engine:
        truth = vectors(engine, items)
    distances = []
    for count in (1, 2):
        with running(folder, dtype="bfloat16", tp=count) as engine:
            distances.append(float(1 - (vectors(engine, items) * truth).sum(1).mean()))
    assert distances[1] <= 1.25 * distances[0]


def test_what_overflows_is_run_again_by_all_ranks(tmp_path: Path) -> None:
    folder = write_qwen3(tmp_path / "model", Qwen3Spec(width=38, layers=2, vocab=301, dtype=torch.float16, scale=9.0))
    items = texts()
    with running(folder, dtype="float32") as engine:
        truth = vectors(engine, items)
    with running(folder, dtype="float16", force_float16=True, tp=2) as engine:
        found = vectors(engine, items)
        assert engine.status().counts.upcast_texts > 0
    np.testing.assert_allclose(found, truth, atol=2e-2)


def test_a_rank_that_dies_fails_everyone_and_the_engine_can_be_closed(tmp_path: Path) -> None:
    folder = write_qwen3(tmp_path / "model", ODD)
    with running(folder, dtype="float32", tp=2, max_batch_tokens=64) as engine:
        waiting = engine.submit(texts(200))
        (rank,) = followers()
        rank.kill()
        with pytest.raises(Unavailable):
            waiting.result(30)
        with pytest.raises(Unavailable):
            engine.submit(texts()).result(30)
        wait_for(lambda: engine.reason == "tensor-parallel rank 1 ended by signal SIGKILL")
        assert not engine.status().alive


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_start_that_fails_leaves_no_rank_behind(tmp_path: Path) -> None:
    folder = write_qwen3(tmp_path / "model", ODD)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5000])
    with pytest.raises(ModelError, match="damaged"), running(folder, tp=2):
        pass
    assert followers() == []


def test_several_engines_are_refused_in_one_process(tmp_path: Path) -> None:
    folder = write_qwen3(tmp_path / "model", ODD)
    with pytest.raises(ConfigError, match=r"--dp 2 \(dp\)"), running(folder, dp=2):
        pass

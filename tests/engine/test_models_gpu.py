"""Several models on a real GPU: their CUDA graphs use one memory in turn, and each answers what it would alone.

Run: python -m pytest -m gpu tests/engine/test_models_gpu.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pytest
import torch

from anydim.config import EngineSettings, ModelSettings
from anydim.engine.fleet import Fleet
from anydim.engine.load import load_engines
from anydim.models.card import ModelCard, read_card
from anydim.types import Item
from tests.checkpoints import Qwen3Spec, write_qwen3
from tests.pipeline import Pipeline
from tests.rerankers import CausalSpec, write_qwen3_reranker
from tests.shelf import Shelf

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

CUDA: Final = torch.device("cuda", 0)
HALF: Final = torch.bfloat16
LENGTHS: Final = (5, 31, 64, 100, 300, 700)


@pytest.fixture(scope="module")
def cards(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> list[ModelCard]:
    """Two embedding models and a reranker, all random."""
    root = tmp_path_factory.mktemp("models")
    spec = Qwen3Spec(
        width=256, layers=3, heads=4, kv_heads=2, head_dim=64, inner=512, vocab=640, positions=1024, dtype=HALF
    )
    folders: list[Path] = [write_qwen3(root / "embedder", spec), write_qwen3(root / "other", spec)]
    causal = CausalSpec(dtype=HALF, width=256)
    folders.append(write_qwen3_reranker(root / "reranker", causal, shelf.tokenizer("qwen3-chat")))
    return [read_card(folder) for folder in folders]


def items(card: ModelCard, model: int, seed: int) -> list[Item]:
    draw = np.random.default_rng(seed)
    width = card.width if card.scorer is None else len(card.scorer.labels)
    return [Item(draw.integers(5, 600, length, dtype=np.int32), width, model=model) for length in LENGTHS]


def test_models_with_graphs_in_one_memory_answer_what_each_does_alone(cards: list[ModelCard]) -> None:
    rows = [(card, ModelSettings(dtype="bfloat16")) for card in cards]
    engine, _ = load_engines(rows, EngineSettings(device="cuda", max_batch_tokens=1024), show_progress=False)
    alone = [Pipeline(card.folder, CUDA, HALF) for card in cards]
    with engine:
        fleet = engine._loop._runner
        assert isinstance(fleet, Fleet)
        memories = {id(runner.graph_memory) for runner in fleet._runners}
        assert len(memories) == 1, "all use one memory"
        assert all(runner._graphs and runner._graphs._graphs for runner in fleet._runners)
        for seed in range(3):
            work = [[item] for model, card in enumerate(cards) for item in items(card, model, seed)]
            order = np.random.default_rng(seed).permutation(len(work))
            futures = {place: engine.submit(work[place]) for place in order.tolist()}
            for place, future in futures.items():
                [found] = future.result(60)
                [item] = work[place]
                [wanted] = alone[item.model].run([Item(item.ids, item.dim)])
                assert found.error is None
                if cards[item.model].scorer is None:
                    assert float(found.values @ wanted.values) >= 0.9999
                else:
                    np.testing.assert_allclose(found.values, wanted.values, atol=2e-2)

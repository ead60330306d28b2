"""Law 4 on a GPU for 8-bit products: near to plain, batch = single, replay = eager, kernels = plain torch.

Run: python -m pytest -m gpu tests/numerics/test_quantized_gpu.py
"""

from functools import cache
from pathlib import Path
from types import MappingProxyType

import pytest
import torch

from anydim.kernels import OP_NAMES
from tests.checkpoints import Qwen3Spec, write_qwen3
from tests.numerics.test_gpu import CUDA, HALF, VOCAB, alone, least_cosine, random_texts
from tests.pipeline import Pipeline

HAS_FP8 = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 9)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="these laws are about CUDA, and no CUDA device is here"),
]
KINDS = [pytest.param("fp8", marks=pytest.mark.skipif(not HAS_FP8, reason="this GPU has no fp8 products")), "int8"]
LEAST = MappingProxyType({"fp8": 0.993, "int8": 0.998})
"""The bounds of docs/quantization.md for this checkpoint: 8 layers of random weights."""
SPEC = Qwen3Spec(
    width=1024, layers=8, heads=16, kv_heads=8, head_dim=128, inner=3072, vocab=VOCAB, scale=0.02, dtype=HALF
)


class Bench:
    """The checkpoint in each precision."""

    def __init__(self, folder: Path) -> None:
        self.folder = write_qwen3(folder, SPEC)
        self.of = cache(self._load)

    def _load(self, kind: str, plain: bool = False) -> Pipeline:
        ops = tuple(sorted(OP_NAMES)) if plain else ()
        return Pipeline(self.folder, CUDA, HALF, plain_ops=ops, quantization=kind)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("quantized") / "qwen3")


@pytest.mark.parametrize("kind", KINDS)
def test_near_to_plain(bench: Bench, kind: str) -> None:
    texts = random_texts()
    assert least_cosine(bench.of(kind).vectors(texts), bench.of("none").vectors(texts)) >= 0.98


@pytest.mark.parametrize("kind", KINDS)
def test_batch_is_single(bench: Bench, kind: str) -> None:
    """Texts of up to 64 tokens take other kernels alone than in a batch, and a last bit may turn into a step."""
    texts = random_texts(seed=2)
    assert least_cosine(bench.of(kind).vectors(texts), alone(bench.of(kind), texts)) >= LEAST[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_are_plain_torch(bench: Bench, kind: str) -> None:
    texts = random_texts(seed=3)
    assert least_cosine(bench.of(kind).vectors(texts), bench.of(kind, plain=True).vectors(texts)) >= LEAST[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_graph_replay_is_eager(bench: Bench, kind: str) -> None:
    replayed = Pipeline(bench.folder, CUDA, HALF, quantization=kind)
    replayed.runner.warm_up(256, 256, graphs=True)
    for seed, lengths in enumerate(((5,), (32,), (60, 60, 60), (9, 200), (1,))):
        texts = random_texts(lengths, seed)
        assert least_cosine(replayed.vectors(texts), bench.of(kind).vectors(texts)) >= LEAST[kind]

"""Laws 1, 2 and 4 on a GPU, and the law of bfloat16: kernels and graphs against plain torch and transformers.

Token ids go straight to the runner, so that no tokenizer is needed. The checkpoints are stored in bfloat16: then both
precisions run the same weights. Run: python -m pytest -m gpu tests/numerics/test_gpu.py

Legend: T tokens, B texts, D full width.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModel

from anydim.engine.packing import pack
from anydim.kernels import OP_NAMES
from anydim.types import Item, OutputDtype, Pooling
from tests.checkpoints import EncoderSpec, Qwen3Spec, write_encoder, write_qwen3
from tests.pipeline import Pipeline

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="these laws are about CUDA, and no CUDA device is here"),
]

Ids = NDArray[np.int32]
CUDA: Final = torch.device("cuda", 0)
HALF: Final = torch.bfloat16
VOCAB: Final = 1000
QWEN3: Final = MappingProxyType(
    {
        "qwen3-1024": Qwen3Spec(
            width=1024, layers=8, heads=16, kv_heads=8, head_dim=128, inner=3072, vocab=VOCAB, scale=0.02, dtype=HALF
        ),
        "qwen3-2560": Qwen3Spec(
            width=2560, layers=2, heads=32, kv_heads=8, head_dim=128, inner=1024, vocab=VOCAB, scale=0.02, dtype=HALF
        ),
        "qwen3-6-to-2-heads": Qwen3Spec(
            width=320, layers=3, heads=6, kv_heads=2, head_dim=64, inner=400, vocab=VOCAB, scale=0.06, dtype=HALF
        ),
        "qwen3-long": Qwen3Spec(
            width=128, layers=2, heads=4, kv_heads=2, head_dim=64, inner=256, vocab=VOCAB, positions=32768, dtype=HALF
        ),
    }
)
ENCODERS: Final = MappingProxyType(
    {
        "bert-mean": EncoderSpec(
            width=384, layers=6, heads=12, inner=1536, vocab=VOCAB, positions=512, scale=0.05, dtype=HALF
        ),
        "xlm-roberta-cls": EncoderSpec(
            kind="xlm-roberta", pooling="cls", width=256, layers=3, heads=4, vocab=VOCAB, positions=514, dtype=HALF
        ),
    }
)
NAMES: Final = ("qwen3-1024", "qwen3-2560", "qwen3-6-to-2-heads", *ENCODERS)
WITH_GRAPHS: Final = ("qwen3-1024", "qwen3-6-to-2-heads", "xlm-roberta-cls", "bert-mean")
LENGTHS: Final = (1, 2, 3, 7, 15, 16, 17, 33, 33, 33, 64, 65, 100, 127, 128, 129, 200, 257, 400, 511, 512)
GRAPH_BATCHES: Final = ((256,), (3, 5, 8), (16,), (17,), (1,) * 32, (1,), (60, 60, 60, 60), (255,), (8,) * 31, (2, 250))


class Bench:
    """Checkpoints by name, loaded on the GPU once a precision, in anydim and in transformers."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.folder = cache(self._write)
        self.ours = cache(self._ours)
        self.plain = cache(self._plain)
        self._model = cache(self._load)
        self.reference = cache(self._reference)

    def _write(self, name: str) -> Path:
        if name in QWEN3:
            return write_qwen3(self._root / name, QWEN3[name])
        return write_encoder(self._root / name, ENCODERS[name])

    def _ours(self, name: str, dtype: torch.dtype) -> Pipeline:
        return Pipeline(self.folder(name), CUDA, dtype)

    def _plain(self, name: str, dtype: torch.dtype) -> Pipeline:
        return Pipeline(self.folder(name), CUDA, dtype, plain_ops=tuple(sorted(OP_NAMES)))

    def _load(self, name: str, dtype: torch.dtype) -> Any:
        return AutoModel.from_pretrained(self.folder(name), dtype=dtype).to(CUDA).eval()

    def _reference(self, name: str, dtype: torch.dtype) -> NDArray[np.float32]:
        return self.transformers(name, dtype, random_texts())

    @torch.inference_mode()
    def transformers(self, name: str, dtype: torch.dtype, texts: Sequence[Ids]) -> NDArray[np.float32]:
        """transformers' unit vectors, one text at a time; pooled in float32."""
        model, rows = self._model(name, dtype), []
        for ids_T in texts:
            ids_1T = torch.from_numpy(ids_T.astype(np.int64))[None].to(CUDA)
            states_TD = model(ids_1T).last_hidden_state[0].float()
            pooled = {Pooling.LAST: states_TD[-1], Pooling.CLS: states_TD[0], Pooling.MEAN: states_TD.mean(0)}
            rows.append(torch.nn.functional.normalize(pooled[self.ours(name, dtype).card.pooling], dim=0))
        return np.asarray(torch.stack(rows).cpu().numpy())


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Checkpoints on the GPU."""
    return Bench(tmp_path_factory.mktemp("gpu"))


def random_texts(lengths: Sequence[int] = LENGTHS, seed: int = 1) -> list[Ids]:
    """Random token ids, none of them a padding token."""
    generator = np.random.default_rng(seed)
    return [generator.integers(5, VOCAB, length, dtype=np.int32) for length in lengths]


def alone(pipeline: Pipeline, texts: Sequence[Ids]) -> NDArray[np.float32]:
    """Each text in a batch of its own."""
    return np.concatenate([pipeline.vectors([ids_T]) for ids_T in texts])


def least_cosine(a_BD: NDArray[np.float32], b_BD: NDArray[np.float32]) -> float:
    """The least cosine of pairs of unit vectors."""
    assert np.isfinite(a_BD).all()
    return float((a_BD.astype(np.float64) * b_BD).sum(axis=1).min())


def assert_near(a_BD: NDArray[np.float32], b_BD: NDArray[np.float32], dtype: torch.dtype) -> None:
    """Whether unit vectors agree as well as their precision allows."""
    if dtype is torch.float32:
        assert np.abs(a_BD - b_BD).max() <= 1e-5
    assert least_cosine(a_BD, b_BD) >= (0.99999 if dtype is torch.float32 else 0.9999)


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_reference(bench: Bench, name: str) -> None:
    ours = bench.ours(name, torch.float32).vectors(random_texts())
    assert np.abs(ours - bench.reference(name, torch.float32)).max() <= 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_as_near_to_float32_as_transformers(bench: Bench, name: str) -> None:
    exact = bench.reference(name, torch.float32)
    ours = bench.ours(name, HALF).vectors(random_texts()) - exact
    theirs = bench.reference(name, HALF) - exact
    assert np.linalg.norm(ours) <= 1.25 * np.linalg.norm(theirs)


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize("name", NAMES)
def test_batch_is_single(bench: Bench, name: str, dtype: torch.dtype) -> None:
    pipeline = bench.ours(name, dtype)
    for texts in (random_texts(), random_texts([50] * 20, 2), random_texts([1] * 40, 3), random_texts([512, 1, 1], 4)):
        assert_near(pipeline.vectors(texts), alone(pipeline, texts), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
@pytest.mark.parametrize("name", NAMES)
def test_kernels_are_plain_torch(bench: Bench, name: str, dtype: torch.dtype) -> None:
    texts = random_texts(seed=5)
    assert_near(bench.ours(name, dtype).vectors(texts), bench.plain(name, dtype).vectors(texts), dtype)


@pytest.mark.parametrize("name", NAMES)
def test_twice_gives_the_same_bits(bench: Bench, name: str) -> None:
    pipeline, texts = bench.ours(name, HALF), random_texts(seed=6)
    first = pipeline.vectors(texts)
    pipeline.vectors(random_texts([300] * 8, 7))
    np.testing.assert_array_equal(pipeline.vectors(texts), first)


@pytest.mark.parametrize("dtype", [torch.float32, HALF])
def test_the_longest_text_alone_and_among_short_ones(bench: Bench, dtype: torch.dtype) -> None:
    (long,), short = random_texts([32768], 8), random_texts([1, 5, 5, 40], 9)
    expected = bench.transformers("qwen3-long", torch.float32, [long])
    pipeline = bench.ours("qwen3-long", dtype)
    mixed = pipeline.vectors([*short, long])
    assert_near(mixed[:-1], alone(pipeline, short), dtype)
    for vector in (mixed[-1:], pipeline.vectors([long])):
        if dtype is torch.float32:
            assert np.abs(vector - expected).max() <= 1e-5
        assert least_cosine(vector, expected) >= 0.999


@pytest.fixture(scope="module", params=[torch.float32, HALF], ids=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Both precisions."""
    chosen: torch.dtype = request.param
    return chosen


@pytest.fixture(scope="module", params=WITH_GRAPHS)
def graphed(request: pytest.FixtureRequest, bench: Bench, dtype: torch.dtype) -> tuple[Pipeline, Pipeline]:
    """One model twice: with captured graphs up to 256 tokens, and eager."""
    pipeline = Pipeline(bench.folder(request.param), CUDA, dtype)
    pipeline.runner.warm_up(256, 256, graphs=True)
    assert pipeline.runner._graphs is not None, "small batches of this model are replayed"
    return pipeline, bench.ours(request.param, dtype)


def test_graph_replay_is_eager(graphed: tuple[Pipeline, Pipeline], dtype: torch.dtype) -> None:
    """One after another, so that what a larger batch left in the buffers would show in a smaller one."""
    replayed, eager = graphed
    for seed, lengths in enumerate(GRAPH_BATCHES + GRAPH_BATCHES[::-1]):
        texts = random_texts(lengths, seed)
        assert_near(replayed.vectors(texts), eager.vectors(texts), dtype)


def test_batches_that_fit_no_graph_run_eagerly(graphed: tuple[Pipeline, Pipeline], dtype: torch.dtype) -> None:
    replayed, eager = graphed
    for lengths in ((257,), (1,) * 33, (200, 200)):
        texts = random_texts(lengths, 10)
        assert_near(replayed.vectors(texts), eager.vectors(texts), dtype)


def test_replays_in_flight_do_not_overwrite_each_other(graphed: tuple[Pipeline, Pipeline], dtype: torch.dtype) -> None:
    replayed, eager = graphed
    batches = [random_texts(lengths, seed) for seed, lengths in enumerate([(9, 30), (8, 31), (10, 29), (40,), (7, 32)])]
    width = replayed.card.width
    flights = [replayed.runner.start(pack([Item(ids_T, width) for ids_T in texts])) for texts in batches]
    for texts, flight in zip(batches, flights, strict=True):
        assert_near(Pipeline.stack(replayed.runner.finish(flight)), eager.vectors(texts), dtype)


def test_dimensions_and_types_share_a_replay(graphed: tuple[Pipeline, Pipeline]) -> None:
    replayed, _ = graphed
    texts = random_texts([12] * 12, 11)
    full = replayed.vectors(texts).astype(np.float64)
    dims = [32 * (1 + place % 8) for place in range(12)]
    kinds = [list(OutputDtype)[place % 6] for place in range(12)]
    outputs = replayed.run([Item(ids_T, dim, kind) for ids_T, dim, kind in zip(texts, dims, kinds, strict=True)])
    for output, vector, dim, kind in zip(outputs, full, dims, kinds, strict=True):
        head = vector[:dim] / np.linalg.norm(vector[:dim])
        assert output.values.shape == (kind.stored(dim),)
        if kind in (OutputDtype.FLOAT32, OutputDtype.FLOAT16):
            np.testing.assert_allclose(output.values, head, atol=1e-3 if kind == "float16" else 1e-6)
        elif kind.has_scale:
            levels = output.values.astype(np.float64) - (128 if kind == "uint8" else 0)
            np.testing.assert_allclose(levels, 127 * head / np.abs(head).max(), atol=0.51)
        else:
            bits = np.unpackbits(output.values.view(np.uint8) ^ (128 if kind == "binary" else 0))
            np.testing.assert_array_equal(bits, head > 0)


def test_a_nan_does_not_outlive_its_replay(bench: Bench) -> None:
    poisoned, eager = Pipeline(bench.folder("qwen3-1024"), CUDA, HALF), bench.ours("qwen3-1024", HALF)
    poisoned.runner.warm_up(64, 64, graphs=True)
    next(parameter for parameter in poisoned.model.parameters() if parameter.ndim == 2)[2] = float("nan")
    texts, width = random_texts([20, 5, 30], 12), poisoned.card.width
    sick = [texts[0], np.full(5, 2, np.int32), texts[2]]
    outputs = poisoned.run([Item(ids_T, width) for ids_T in sick])
    assert [output.error is not None for output in outputs] == [False, True, False]
    assert_near(Pipeline.stack([outputs[0], outputs[2]]), eager.vectors([texts[0], texts[2]]), HALF)
    assert_near(poisoned.vectors(texts[:2]), eager.vectors(texts[:2]), HALF)

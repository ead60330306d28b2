"""Law 4 on a GPU: a shared prefix = no shared prefix, in both precisions, through every attention tiling.

Run: python -m pytest -m gpu tests/numerics/test_prefixes_gpu.py tests/kernels/test_prefixes_gpu.py
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModel

from anydim.engine.packing import pack
from anydim.kernels import FEW_TOKENS
from anydim.types import Item
from tests.checkpoints import Qwen3Spec, write_qwen3
from tests.pipeline import Pipeline

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this law is about CUDA, and no CUDA device is here"),
]

Ids = NDArray[np.int32]
CUDA: Final = torch.device("cuda", 0)
HALF: Final = torch.bfloat16
VOCAB: Final = 1000
SPECS: Final = MappingProxyType(
    {
        "1024": Qwen3Spec(
            width=1024, layers=4, heads=16, kv_heads=8, head_dim=128, inner=3072, vocab=VOCAB, positions=8192,
            scale=0.02, dtype=HALF,
        ),
        "6-to-2-heads": Qwen3Spec(
            width=320, layers=3, heads=6, kv_heads=2, head_dim=64, inner=400, vocab=VOCAB, positions=8192,
            scale=0.06, dtype=HALF,
        ),
    }
)  # fmt: skip
# (tokens of a prefix, of what each text has of its own), the first with a prefix of none.
BATCHES: Final = MappingProxyType(
    {
        "queries": ((0, ()), (80, (32,) * 40)),
        "documents": ((0, (300,)), (100, (128, 200, 511, 512, 128))),
        "one token each": ((0, (5, 700)), (97, (1,) * 60)),
        "several": ((0, (1, 64, 64, 33)), (16, (1, 8, 17, 40)), (128, tuple(range(1, 30))), (65, (64, 65, 66))),
        "mostly short": ((0, (2,) * 600), (16, (1,) * 40)),
        "long prefix": ((0, (17,)), (3000, (1, 5, 40, 130, 2500))),
    }
)


@pytest.fixture(scope="module", params=SPECS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal checkpoint."""
    return write_qwen3(tmp_path_factory.mktemp("shared") / "model", SPECS[request.param])


@pytest.fixture(scope="module", params=[torch.float32, HALF], ids=["float32", "bfloat16"])
def pair(request: pytest.FixtureRequest, folder: Path) -> tuple[Pipeline, Pipeline, torch.dtype]:
    """One model that shares prefixes, and one that does not."""
    dtype: torch.dtype = request.param
    return Pipeline(folder, CUDA, dtype), Pipeline(folder, CUDA, dtype, share_prefixes=False), dtype


@pytest.fixture(params=BATCHES)
def texts(request: pytest.FixtureRequest) -> list[Ids]:
    """The texts of a batch, shuffled."""
    draw = np.random.default_rng(4)
    rows = []
    for length, owns in BATCHES[request.param]:
        prefix = draw.integers(5, VOCAB, length, dtype=np.int32)
        rows += [np.concatenate([prefix, draw.integers(5, VOCAB, own, dtype=np.int32)]) for own in owns]
    return [rows[place] for place in draw.permutation(len(rows))]


@pytest.fixture
def run_by(pair: tuple[Pipeline, Pipeline, torch.dtype]) -> Iterator[list[int]]:
    """Tokens of every forward of the model that shares."""
    seen: list[int] = []
    hook = pair[0].model.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0].ids_T)))
    yield seen
    hook.remove()


def assert_near(a_BD: NDArray[np.float32], b_BD: NDArray[np.float32], dtype: torch.dtype) -> None:
    """Whether unit vectors agree as well as their precision allows."""
    assert np.isfinite(a_BD).all()
    if dtype is torch.float32:
        assert np.abs(a_BD - b_BD).max() <= 1e-5
    assert (a_BD.astype(np.float64) * b_BD).sum(axis=1).min() >= (0.99999 if dtype is torch.float32 else 0.9999)


@torch.inference_mode()
def transformers(folder: Path, texts: Sequence[Ids]) -> NDArray[np.float32]:
    """transformers' unit vectors in float32, one text at a time."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).to(CUDA).eval()
    rows = [model(torch.from_numpy(ids_T.astype(np.int64))[None].to(CUDA)).last_hidden_state[0, -1] for ids_T in texts]
    return np.asarray(torch.nn.functional.normalize(torch.stack(rows)).cpu().numpy())


def test_shared_is_unshared(pair: tuple[Pipeline, Pipeline, torch.dtype], texts: list[Ids], run_by: list[int]) -> None:
    sharing, unshared, dtype = pair
    ours = sharing.vectors(texts)
    assert run_by[0] < sum(map(len, texts))
    assert_near(ours, unshared.vectors(texts), dtype)


def test_shared_is_each_text_alone(pair: tuple[Pipeline, Pipeline, torch.dtype], texts: list[Ids]) -> None:
    sharing, _, dtype = pair
    alone = np.concatenate([sharing.vectors([ids_T]) for ids_T in texts[:40]])
    assert_near(sharing.vectors(texts)[:40], alone, dtype)


def test_shared_is_reference(pair: tuple[Pipeline, Pipeline, torch.dtype], folder: Path, texts: list[Ids]) -> None:
    """In bfloat16 it may be no further off than 1.25 times what the same model without sharing is."""
    sharing, unshared, dtype = pair
    exact = transformers(folder, texts[:40])
    gap = sharing.vectors(texts)[:40] - exact
    if dtype is torch.float32:
        assert np.abs(gap).max() <= 1e-5
    else:
        assert np.linalg.norm(gap) <= 1.25 * np.linalg.norm(unshared.vectors(texts)[:40] - exact)


def test_a_small_batch_is_not_worth_it(pair: tuple[Pipeline, Pipeline, torch.dtype], run_by: list[int]) -> None:
    """Up to 1024 tokens a batch runs as it is, so that it can replay a graph."""
    text = np.arange(5, 261, dtype=np.int32)
    pair[0].vectors([text] * 4)
    pair[0].vectors([text] * 5)
    assert run_by == [1024, 255 + 5]


def test_a_broken_text_does_not_break_those_it_shares_with(folder: Path) -> None:
    pipeline = Pipeline(folder, CUDA, HALF)
    next(parameter for parameter in pipeline.model.parameters() if parameter.ndim == 2)[2] = float("nan")
    draw = np.random.default_rng(5)
    prefix = draw.integers(5, VOCAB, 75, dtype=np.int32)
    texts = [np.concatenate([prefix, draw.integers(5, VOCAB, own, dtype=np.int32)]) for own in (30, 31, 5, 900)]
    wanted = pipeline.vectors([texts[place] for place in (0, 2, 3)])
    texts[1][90] = 2
    outputs = pipeline.run([Item(ids_T, pipeline.card.width) for ids_T in texts])
    assert [output.error is not None for output in outputs] == [False, True, False, False]
    assert_near(Pipeline.stack([outputs[place] for place in (0, 2, 3)]), wanted, HALF)


@pytest.mark.parametrize("plain", [("attend",), ("attend_rows",), ("silu_mul",)])
def test_flash_attention_of_torch_gets_no_prefixes(folder: Path, plain: tuple[str, ...]) -> None:
    """In 16 bits it is what --plain-ops falls back to."""
    pipeline, text = Pipeline(folder, CUDA, HALF, plain), np.arange(5, 261, dtype=np.int32)
    seen: list[int] = []
    pipeline.model.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0].ids_T)))
    assert_near(pipeline.vectors([text] * 5), np.repeat(pipeline.vectors([text]), 5, axis=0), HALF)
    assert seen == [260 if plain == ("silu_mul",) else 1280, 256]


def test_nothing_is_compiled_after_the_warm_up(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No batch must wait for a compiler, or for a kernel that is loaded: that waits until the device is idle."""
    triton = pytest.importorskip("triton")
    pipeline = Pipeline(folder, CUDA, HALF)
    pipeline.runner.warm_up(16384, 8192, graphs=False)
    compiled: list[str] = []
    monkeypatch.setattr(triton.knobs.runtime, "jit_post_compile_hook", lambda **what: compiled.append(what["repr"]))
    draw = np.random.default_rng(6)
    for length, own in ((80, (1,) * 40), (80, (32,) * 40), (20, (1,) * 60), (100, (512,) * 5), (3000, (40, 1, 9))):
        prefix = draw.integers(5, VOCAB, length, dtype=np.int32)
        pipeline.vectors([np.concatenate([prefix, draw.integers(5, VOCAB, n, dtype=np.int32)]) for n in own])
    for _ in range(40):  # of more tokens than the fused steps take: batches of fewer replay a graph
        lengths = draw.integers(1, draw.choice([12, 60, 400]), draw.integers(FEW_TOKENS + 1, 300))
        dims = draw.choice([32, 64, 256], len(lengths))
        texts = [draw.integers(5, VOCAB, length, dtype=np.int32) for length in lengths]
        batch = pack([Item(ids_T, int(dim)) for ids_T, dim in zip(texts, dims, strict=True)])
        pipeline.runner.finish(pipeline.runner.start(batch))
    assert compiled == []

"""Law 4: a shared prefix = no shared prefix = transformers on each text alone, at most 1e-5 apart in float32.

How many tokens a forward runs shows whether prefixes were shared at all.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import AutoModel

from anydim.config import EngineSettings
from anydim.embedder import Embedder
from anydim.engine.embedding import Embedding
from anydim.engine.packing import factor_out
from anydim.engine.runner import Runner
from anydim.kernels import make_plan, tile_shape
from anydim.types import Item, Pooling
from tests.checkpoints import Qwen3Spec, write_qwen3
from tests.pipeline import Pipeline
from tests.shelf import Shelf

Ids = NDArray[np.int32]

NAMES = ["qwen3", "qwen3-5-to-1-heads", "qwen3-equal-heads", "qwen3-one-layer", "qwen3-bias"]
VOCAB = 600


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """A causal checkpoint."""
    return str(request.param)


@pytest.fixture(scope="module")
def reference(shelf: Shelf, name: str) -> Any:
    """The same checkpoint in transformers."""
    return AutoModel.from_pretrained(shelf.folder(name), dtype=torch.float32).eval()


@torch.inference_mode()
def expected(reference: Any, texts: Sequence[Ids]) -> NDArray[np.float32]:
    """transformers' unit vectors, one text at a time."""
    states = [reference(torch.from_numpy(ids_T.astype(np.int64))[None]).last_hidden_state[0, -1] for ids_T in texts]
    return np.asarray(torch.nn.functional.normalize(torch.stack(states)).numpy())


def random_ids(length: int, seed: int) -> Ids:
    """Token ids, none of them a padding token."""
    return np.random.default_rng(seed).integers(5, VOCAB, length, dtype=np.int32)


def behind(prefix: Ids, lengths: Sequence[int], seed: int) -> list[Ids]:
    """Random texts of these lengths behind a prefix."""
    return [np.concatenate([prefix, random_ids(n, 1000 * seed + place)]) for place, n in enumerate(lengths)]


@contextmanager
def tokens_run(pipeline: Pipeline) -> Iterator[list[int]]:
    """How many tokens each forward takes."""
    seen: list[int] = []
    hook = pipeline.model.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0].ids_T)))
    yield seen
    hook.remove()


@given(
    prefixes=st.lists(st.integers(16, 90), min_size=1, max_size=3),
    owns=st.lists(st.lists(st.integers(1, 40), min_size=2, max_size=5), min_size=3, max_size=3),
    alone=st.lists(st.integers(1, 60), max_size=3),
    seed=st.integers(0, 2**20),
)
def test_shared_is_unshared_and_reference(
    shelf: Shelf, name: str, reference: Any, prefixes: list[int], owns: list[list[int]], alone: list[int], seed: int
) -> None:
    texts = [random_ids(length, seed + 900 + length) for length in alone]
    for place, (length, own) in enumerate(zip(prefixes, owns, strict=False)):
        texts += behind(random_ids(length, seed + place), own, seed + 10 + place)
    pipeline = shelf.ours(name)
    with tokens_run(pipeline) as seen:
        ours = pipeline.vectors(texts)
    assert seen[0] < sum(map(len, texts))
    assert np.abs(ours - expected(reference, texts)).max() <= 1e-5


def test_every_token_of_a_prefix_is_run_once(shelf: Shelf, name: str, reference: Any) -> None:
    texts = behind(random_ids(80, 1), [32, 1, 7, 32, 100], 2)
    pipeline = shelf.ours(name)
    with tokens_run(pipeline) as seen:
        ours = pipeline.vectors(texts)
    assert seen == [80 + 32 + 1 + 7 + 32 + 100]
    assert np.abs(ours - expected(reference, texts)).max() <= 1e-5


def test_copies_of_a_text_share_all_but_their_last_token(shelf: Shelf, name: str, reference: Any) -> None:
    text = random_ids(50, 3)
    pipeline = shelf.ours(name)
    with tokens_run(pipeline) as seen:
        ours = pipeline.vectors([text] * 6)
    assert seen == [49 + 6]
    assert np.abs(ours - expected(reference, [text])).max() <= 1e-5


def test_dimensions_and_lengths_of_vectors_stay_with_their_texts(shelf: Shelf) -> None:
    pipeline, texts = shelf.ours("qwen3"), behind(random_ids(40, 4), [9, 3, 20, 9], 5)
    full = pipeline.vectors(texts)
    items = [Item(ids_T, dim, normalize=dim != 64) for ids_T, dim in zip(texts, (8, 64, 24, 1), strict=True)]
    for output, vector, item in zip(pipeline.run(items), full, items, strict=True):
        assert output.values.shape == (item.dim,)
        unit = output.values / np.linalg.norm(output.values.astype(np.float64))
        np.testing.assert_allclose(unit, vector[: item.dim] / np.linalg.norm(vector[: item.dim]), atol=1e-6)
    assert abs(np.linalg.norm(pipeline.run(items)[1].values) - 1) > 0.1


def test_a_broken_text_does_not_break_those_it_shares_with(tmp_path: Path) -> None:
    pipeline = Pipeline(write_qwen3(tmp_path / "model", Qwen3Spec()))
    next(parameter for parameter in pipeline.model.parameters() if parameter.ndim == 2)[2] = float("nan")
    texts = behind(random_ids(40, 6), [9, 12, 12, 30], 7)
    wanted = pipeline.vectors([texts[0], texts[2], texts[3]])
    texts[1][45] = 2
    with tokens_run(pipeline) as seen:
        outputs = pipeline.run([Item(ids_T, pipeline.card.width) for ids_T in texts])
    assert seen == [40 + 9 + 12 + 12 + 30]
    assert [output.error is not None for output in outputs] == [False, True, False, False]
    kept = Pipeline.stack([outputs[0], outputs[2], outputs[3]])
    assert np.abs(kept - wanted).max() <= 1e-5


def test_encoders_share_nothing(shelf: Shelf) -> None:
    texts = behind(random_ids(40, 8), [9, 3, 20], 9)
    for name in ("bert-mean", "roberta-cls"):
        with tokens_run(shelf.ours(name)) as seen:
            shelf.ours(name).vectors(texts)
        assert seen == [sum(map(len, texts))]


@pytest.mark.parametrize("pooling", [Pooling.CLS, Pooling.MEAN, Pooling.MAX])
def test_other_pooling_than_the_last_token_shares_nothing(shelf: Shelf, pooling: Pooling) -> None:
    """It would read tokens of the prefix."""
    texts, ours = behind(random_ids(40, 8), [9, 3, 20], 9), Pipeline(shelf.folder("qwen3"))
    task = Embedding(pooling, ours.card.width, torch.device("cpu"))
    ours.runner = Runner(ours.model, task, torch.device("cpu"), torch.float32, share_prefixes=True)
    with tokens_run(ours) as seen:
        ours.vectors(texts)
    assert seen == [sum(map(len, texts))]


@pytest.mark.parametrize("wanted", [True, False])
def test_the_setting_turns_it_on_and_off(shelf: Shelf, wanted: bool) -> None:
    """Through the library, with the engine's own loop."""
    text = "the same words at the beginning of many a text, and then at last something of its own: "
    with Embedder(
        str(shelf.folder("qwen3")), share_prefixes=wanted, device="cpu", dtype="float32", show_progress=False
    ) as embedder:
        with patch("anydim.engine.runner.factor_out", wraps=factor_out) as taken:
            vectors = embedder.embed([text + ending for ending in "abcdefg"])
        single = np.stack([embedder.embed(text + ending) for ending in "abcdefg"])
    assert taken.called is wanted
    assert np.abs(vectors - single).max() <= 1e-5


def test_sharing_is_the_default() -> None:
    assert EngineSettings().share_prefixes


def test_the_warm_up_meets_every_tiling_with_and_without_prefixes(shelf: Shelf) -> None:
    """Each is a kernel to compile, for which no request shall wait."""
    model = shelf.ours("qwen3-long").model
    task = Embedding(Pooling.LAST, 32, torch.device("cpu"))
    runner = Runner(model, task, torch.device("cpu"), torch.bfloat16, share_prefixes=True)
    with patch("anydim.engine.forward.make_plan", wraps=make_plan) as planned:
        runner.warm_up(16384, 32768, graphs=False)
    met = {(call.args[1], call.kwargs["prefixes"] is not None) for call in planned.call_args_list}
    tilings = {tile_shape(length, *model.head_counts) for length in range(1, 8192)}
    assert met == {(tiling, shared) for tiling in tilings for shared in (True, False)}

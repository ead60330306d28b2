"""Vectors a token: those of transformers' last hidden state, whatever shares the batch, in every dimension."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from transformers import AutoModel

from anydim.engine.embedding import Embedding
from anydim.engine.packing import pack
from anydim.engine.runner import Runner
from anydim.models.packed import Packed
from anydim.types import Item, Output, Pooling
from tests.pipeline import Pipeline
from tests.shelf import Shelf
from tests.texts import SENTENCES

NAMES = ["qwen3", "qwen3-5-to-1-heads", "qwen3-one-layer", "bert-mean", "roberta-cls", "xlm-roberta-max"]
LENGTHS = st.lists(st.one_of(st.integers(1, 90), st.sampled_from([1, 17, 33])), min_size=1, max_size=6)


def each(
    pipeline: Pipeline, ids: Sequence[NDArray[np.int32]], dim: int | None = None, unit: bool = False
) -> list[Output]:
    width = pipeline.card.width
    return pipeline.run([Item(ids_T, dim or width, normalize=unit, each_token=True) for ids_T in ids])


def random_ids(lengths: Sequence[int], seed: int) -> list[NDArray[np.int32]]:
    generator = np.random.default_rng(seed)
    return [generator.integers(5, 600, length, dtype=np.int32) for length in lengths]


@pytest.mark.parametrize("name", NAMES)
def test_they_are_the_last_hidden_state_of_transformers(shelf: Shelf, name: str) -> None:
    ours = shelf.ours(name)
    model = AutoModel.from_pretrained(shelf.folder(name), dtype=torch.float32).eval()
    ids = [item.ids for item in ours.items(SENTENCES)]
    for ids_T, output in zip(ids, each(ours, ids), strict=True):
        with torch.inference_mode():
            states_TD = model(torch.from_numpy(ids_T.astype(np.int64))[None]).last_hidden_state[0].numpy()
        assert output.values.shape == states_TD.shape
        scale = np.abs(states_TD).max()
        assert np.abs(output.values - states_TD).max() <= 1e-5 * max(1.0, scale)


@pytest.mark.parametrize("name", NAMES)
@given(lengths=LENGTHS, seed=st.integers(0, 2**31))
def test_batch_is_single(shelf: Shelf, name: str, lengths: list[int], seed: int) -> None:
    pipeline, ids = shelf.ours(name), random_ids(lengths, seed)
    together = each(pipeline, ids, unit=True)
    for ids_T, output in zip(ids, together, strict=True):
        (alone,) = each(pipeline, [ids_T], unit=True)
        assert ((output.values * alone.values).sum(axis=1) >= 0.99999).all()
        np.testing.assert_allclose(output.values, alone.values, atol=1e-5)


@given(lengths=LENGTHS, seed=st.integers(0, 2**31), data=st.data())
def test_a_dimension_is_the_first_components_renormalised(
    shelf: Shelf, lengths: list[int], seed: int, data: st.DataObject
) -> None:
    pipeline, ids = shelf.ours("qwen3"), random_ids(lengths, seed)
    dims = [data.draw(st.sampled_from([32, 64])) for _ in ids]
    raw = each(pipeline, ids)
    items = [Item(ids_T, dim, each_token=True) for ids_T, dim in zip(ids, dims, strict=True)]
    for output, full, dim in zip(pipeline.run(items), raw, dims, strict=True):
        cut = full.values[:, :dim].astype(np.float64)
        np.testing.assert_allclose(output.values, cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-6)


def test_the_last_of_them_is_the_vector_of_the_text(shelf: Shelf) -> None:
    pipeline = shelf.ours("qwen3")
    ids = [item.ids for item in pipeline.items(SENTENCES)]
    vectors = pipeline.vectors(ids)
    last = np.stack([output.values[-1] for output in each(pipeline, ids, unit=True)])
    np.testing.assert_allclose(last, vectors, atol=1e-5)


def test_prefixes_that_texts_share_are_computed_for_each(shelf: Shelf) -> None:
    pipeline = shelf.ours("qwen3")
    shared, tails = np.full(60, 7, np.int32), random_ids([3, 5, 8, 3], 9)
    ids = [np.concatenate([shared, tail]) for tail in tails]
    assert [len(output.values) for output in each(pipeline, ids)] == [63, 65, 68, 63]


def test_a_text_that_is_not_finite_fails_alone() -> None:
    class Broken:
        head_counts, takes_prefixes, takes_dense = (1, 1), False, False

        def __call__(self, batch: Packed, rows_R: torch.Tensor | None = None) -> torch.Tensor:
            assert rows_R is None
            states_TD = torch.ones(len(batch.ids_T), 32)
            states_TD[batch.ids_T == 13] = torch.nan
            return states_TD

    runner = Runner(Broken(), Embedding(Pooling.LAST, 32, torch.device("cpu")), torch.device("cpu"), torch.float32)
    batch = pack([Item(np.array(ids, np.int32), 32, each_token=True) for ids in ([1], [1, 13], [2, 2, 2])])
    first, second, third = runner.finish(runner.start(batch))
    assert first.error is None
    assert third.error is None
    assert second.error is not None
    assert "finite" in second.error.message

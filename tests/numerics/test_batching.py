"""Law 2: a text's vector does not depend on what shares its batch (cosine at least 0.99999 in float32).

Lengths and companions are drawn at random; a small set of lengths makes equal ones frequent, since these take another
path through attention.
"""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from anydim.types import Item
from tests.pipeline import Pipeline
from tests.shelf import ENCODERS, QWEN3, Shelf

VOCAB = 600
NAMES = ["qwen3", "qwen3-5-to-1-heads", "qwen3-one-layer", "bert-mean", "roberta-cls", "xlm-roberta-max"]
LENGTHS = st.one_of(st.integers(1, 120), st.sampled_from([1, 2, 16, 17, 33]))
BATCHES = st.lists(LENGTHS, min_size=1, max_size=9)


def random_ids(lengths: Sequence[int], seed: int) -> list[NDArray[np.int32]]:
    """Token ids, none of them a padding token."""
    generator = np.random.default_rng(seed)
    return [generator.integers(5, VOCAB, length, dtype=np.int32) for length in lengths]


def least_cosine(ours: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """The least cosine of the pairs, in float64."""
    a_BD, b_BD = ours.astype(np.float64), others.astype(np.float64)
    dots_B = (a_BD * b_BD).sum(axis=1)
    return float((dots_B / np.linalg.norm(a_BD, axis=1) / np.linalg.norm(b_BD, axis=1)).min())


def alone(pipeline: Pipeline, ids: Sequence[NDArray[np.int32]]) -> NDArray[np.float32]:
    """Each text in a batch of its own."""
    return np.concatenate([pipeline.vectors([ids_T]) for ids_T in ids])


@pytest.mark.parametrize("name", NAMES)
@given(lengths=BATCHES, seed=st.integers(0, 2**31))
def test_batch_is_single(shelf: Shelf, name: str, lengths: list[int], seed: int) -> None:
    pipeline, ids = shelf.ours(name), random_ids(lengths, seed)
    together, single = pipeline.vectors(ids), alone(pipeline, ids)
    assert least_cosine(together, single) >= 0.99999
    assert np.abs(together - single).max() <= 1e-5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("length", [1, 7, 64])
def test_equal_lengths(shelf: Shelf, name: str, length: int) -> None:
    pipeline, ids = shelf.ours(name), random_ids([length] * 12, length)
    assert least_cosine(pipeline.vectors(ids), alone(pipeline, ids)) >= 0.99999


@pytest.mark.parametrize("name", ["qwen3", "bert-mean"])
@given(lengths=BATCHES, seed=st.integers(0, 2**31), data=st.data())
def test_the_order_of_a_batch_does_not_matter(
    shelf: Shelf, name: str, lengths: list[int], seed: int, data: st.DataObject
) -> None:
    pipeline, ids = shelf.ours(name), random_ids(lengths, seed)
    order = data.draw(st.permutations(range(len(ids))))
    shuffled = pipeline.vectors([ids[place] for place in order])
    assert least_cosine(shuffled, pipeline.vectors(ids)[list(order)]) >= 0.99999


@pytest.mark.parametrize("name", ["qwen3", "roberta-mean"])
def test_one_text_many_times_has_one_vector(shelf: Shelf, name: str) -> None:
    pipeline, (text,) = shelf.ours(name), random_ids([23], 1)
    rows = pipeline.vectors([text, *random_ids([5, 23, 80], 2), text, text])[[0, 4, 5]]
    assert np.abs(rows - rows[0]).max() <= 1e-6


@pytest.mark.parametrize("name", ["qwen3", "bert-cls"])
def test_different_texts_of_equal_length_are_not_mixed_up(shelf: Shelf, name: str) -> None:
    pipeline, ids = shelf.ours(name), random_ids([9] * 30, 3)
    cosines = pipeline.vectors(ids) @ alone(pipeline, ids).T
    assert (cosines.argmax(axis=1) == np.arange(30)).all()


def test_every_text_slot_and_position_is_used(shelf: Shelf) -> None:
    """The last position that a model has, beside one-token texts."""
    for name, positions in (("qwen3", QWEN3["qwen3"].positions), ("xlm-roberta-cls", 128), ("bert-mean", 130)):
        pipeline, ids = shelf.ours(name), random_ids([1, positions, 1], 4)
        assert pipeline.card.max_tokens == positions
        assert least_cosine(pipeline.vectors(ids), alone(pipeline, ids)) >= 0.99999
    assert ENCODERS["bert-mean"].positions == 130


def test_unnormalised_and_unit_vectors_share_a_batch(shelf: Shelf) -> None:
    pipeline, ids = shelf.ours("qwen3"), random_ids([4, 4, 9], 6)
    width = pipeline.card.width
    raw, unit, _ = pipeline.run([Item(ids[0], width, normalize=False), Item(ids[0], width), Item(ids[2], width)])
    length = np.linalg.norm(raw.values.astype(np.float64))
    assert abs(length - 1) > 0.1, "the pooled state of this checkpoint is far from a unit vector"
    np.testing.assert_allclose(raw.values / length, unit.values, atol=1e-6)

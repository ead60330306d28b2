"""Law 1 and 2 at the end of the context: 32,768 tokens alone and among short texts, against transformers."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModel

from tests.shelf import QWEN3, Shelf

LENGTH = 32768
NAME = "qwen3-long"


@pytest.fixture(scope="module")
def long_ids() -> NDArray[np.int32]:
    """Random token ids."""
    return np.random.default_rng(5).integers(0, QWEN3[NAME].vocab, LENGTH, dtype=np.int32)


@pytest.fixture(scope="module")
def expected(shelf: Shelf, long_ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """transformers' last hidden state, as a unit vector."""
    model = AutoModel.from_pretrained(shelf.folder(NAME), dtype=torch.float32).eval()
    with torch.inference_mode():
        states = model(torch.from_numpy(long_ids.astype(np.int64))[None], use_cache=False).last_hidden_state
    return np.asarray(torch.nn.functional.normalize(states[0, -1], dim=0).numpy())


def test_the_longest_text_is_reference(
    shelf: Shelf, long_ids: NDArray[np.int32], expected: NDArray[np.float32]
) -> None:
    assert np.abs(shelf.ours(NAME).vectors([long_ids])[0] - expected).max() <= 1e-5


def test_the_longest_text_among_short_ones(
    shelf: Shelf, long_ids: NDArray[np.int32], expected: NDArray[np.float32]
) -> None:
    short = [long_ids[start : start + 1 + start % 7] for start in range(0, 60, 5)]
    ours = shelf.ours(NAME)
    mixed = ours.vectors([*short, long_ids])
    assert np.abs(mixed[-1] - expected).max() <= 1e-5
    assert np.abs(mixed[:-1] - ours.vectors(short)).max() <= 1e-5

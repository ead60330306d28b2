"""Law 5: dimension d = the first d components of the full vector, renormalised, for every d and every mixture of d.

Output types are compared with formulas written anew in numpy, and the binary ones with sentence-transformers.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import save_file
from sentence_transformers.util.quantization import quantize_embeddings

from anydim.types import Item, Output, OutputDtype
from tests.numerics.test_batching import random_ids
from tests.pipeline import Pipeline
from tests.shelf import Shelf

NAMES = ["qwen3", "qwen3-5-to-1-heads", "bert-mean", "bert-gelu-new"]  # widths 64, 72, 60 and 36
DTYPES = st.sampled_from(list(OutputDtype))


def expected(full: NDArray[np.float32], dim: int) -> NDArray[np.float64]:
    """The law, in float64: cut, then scale to length one."""
    head = full[:dim].astype(np.float64)
    return head / np.linalg.norm(head)


def assert_written(output: Output, vector: NDArray[np.float64], dtype: OutputDtype) -> None:
    """Whether an Output holds the vector in the documented representation of its type."""
    assert output.error is None
    assert output.values.dtype == dtype.numpy
    assert (output.scale is not None) == dtype.has_scale
    if dtype is OutputDtype.FLOAT32:
        np.testing.assert_allclose(output.values, vector, atol=1e-6)
    elif dtype is OutputDtype.FLOAT16:
        np.testing.assert_allclose(output.values.astype(np.float64), vector, rtol=2**-10, atol=1e-6)
    elif dtype.has_scale:
        assert_levels(output, vector, 128 if dtype is OutputDtype.UINT8 else 0)
    else:
        bits = np.unpackbits(output.values.astype(np.int16).astype(np.uint8) ^ (128 if dtype == "binary" else 0))
        certain = np.abs(vector) > 1e-6  # a component at zero may fall on either side
        np.testing.assert_array_equal(bits[: len(vector)][certain], (vector > 0)[certain])
        assert not bits[len(vector) :].any()


def assert_levels(output: Output, vector: NDArray[np.float64], offset: int) -> None:
    """int8 = round(127 v / max|v|), uint8 = that plus 128, and the scale takes the levels back."""
    levels = output.values.astype(np.float64) - offset
    exact = 127 * vector / np.abs(vector).max()
    np.testing.assert_allclose(levels, exact, atol=0.5 + 1e-3)
    assert np.abs(levels).max() == 127
    assert output.scale is not None
    np.testing.assert_allclose(levels * output.scale, vector, atol=0.51 * output.scale)


@pytest.mark.parametrize("name", NAMES)
def test_every_dimension(shelf: Shelf, name: str) -> None:
    pipeline, (ids_T,) = shelf.ours(name), random_ids([11], 1)
    full = pipeline.vectors([ids_T])[0]
    outputs = pipeline.run([Item(ids_T, dim) for dim in range(1, pipeline.card.width + 1)])
    for dim, output in enumerate(outputs, start=1):
        assert output.values.shape == (dim,)
        np.testing.assert_allclose(output.values, expected(full, dim), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data(), seed=st.integers(0, 2**31))
def test_every_mixture_of_dimensions_and_types(shelf: Shelf, name: str, data: st.DataObject, seed: int) -> None:
    pipeline = shelf.ours(name)
    width = pipeline.card.width
    rows = st.tuples(st.integers(1, 40), st.integers(1, width), DTYPES, st.booleans())
    asked = data.draw(st.lists(rows, min_size=1, max_size=8))
    ids = random_ids([length for length, *_ in asked], seed)
    raw = pipeline.stack(pipeline.run([Item(ids_T, width, normalize=False) for ids_T in ids]))
    items = [Item(ids_T, dim, dtype, unit) for ids_T, (_, dim, dtype, unit) in zip(ids, asked, strict=True)]
    for output, full, (_, dim, dtype, unit) in zip(pipeline.run(items), raw, asked, strict=True):
        assert output.values.shape == (dtype.stored(dim),)
        scale = 1.0 if unit else float(np.linalg.norm(full[:dim].astype(np.float64)))
        if unit or dtype not in (OutputDtype.FLOAT32, OutputDtype.FLOAT16):
            assert_written(_divided(output, scale), expected(full, dim), dtype)
        else:
            np.testing.assert_allclose(output.values, full[:dim], rtol=2**-10, atol=1e-4)


def _divided(output: Output, length: float) -> Output:
    """The Output of the vector divided by its length: the levels are the same, the scale shrinks."""
    return Output(output.values, None if output.scale is None else output.scale / length, output.error)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [OutputDtype.BINARY, OutputDtype.UBINARY])
def test_binary_types_are_those_of_sentence_transformers(shelf: Shelf, name: str, dtype: OutputDtype) -> None:
    pipeline, ids = shelf.ours(name), random_ids([3, 8, 8, 30], 2)
    for dim in (1, 7, 8, 9, 31, pipeline.card.width):
        floats = pipeline.stack(pipeline.run([Item(ids_T, dim) for ids_T in ids]))
        packed = pipeline.stack(pipeline.run([Item(ids_T, dim, dtype) for ids_T in ids]))
        theirs = quantize_embeddings(floats, precision=dtype.value)
        np.testing.assert_array_equal(packed, theirs)
        assert packed.dtype == theirs.dtype


@pytest.mark.parametrize("name", ["qwen3", "bert-mean"])
def test_a_rotation_comes_before_the_cut(shelf: Shelf, name: str, tmp_path: Path) -> None:
    plain, ids = shelf.ours(name), random_ids([5, 12, 40], 3)
    width = plain.card.width
    rotation = np.linalg.qr(np.random.default_rng(4).normal(size=(width, width)))[0].astype(np.float32)
    save_file({"rotation": torch.from_numpy(rotation.copy())}, tmp_path / "rotation.safetensors")
    rotated = Pipeline(shelf.folder(name), projection=str(tmp_path / "rotation.safetensors"))
    full = plain.vectors(ids).astype(np.float64) @ rotation.astype(np.float64)
    for dim in (1, 20, 32, width):
        for output, vector in zip(rotated.run([Item(ids_T, dim) for ids_T in ids]), full, strict=True):
            np.testing.assert_allclose(output.values, expected(vector, dim), atol=1e-5)
    cosines = rotated.vectors(ids) @ rotated.vectors(ids).T
    np.testing.assert_allclose(cosines, plain.vectors(ids) @ plain.vectors(ids).T, atol=1e-5)


@pytest.mark.parametrize("name", ["qwen3", "bert-mean", "bert-max", "roberta-cls"])
def test_a_text_that_gives_nan_hurts_only_itself(shelf: Shelf, name: str) -> None:
    poisoned = Pipeline(shelf.folder(name))
    embeddings_VD = next(parameter for parameter in poisoned.model.parameters() if parameter.ndim == 2)
    embeddings_VD[77] = float("nan")
    ids = [np.where(ids_T == 77, 78, ids_T) for ids_T in random_ids([6, 6, 6, 15, 2], 5)]
    clean = poisoned.vectors(ids)
    ids[1] = np.array([9, 8, 77, 6, 5, 4], dtype=np.int32)
    for dtype in OutputDtype:
        outputs = poisoned.run([Item(ids_T, 32, dtype) for ids_T in ids])
        assert outputs[1].error is not None
        assert not len(outputs[1].values)
        for place in (0, 2, 3, 4):
            assert_written(outputs[place], expected(clean[place], 32), dtype)

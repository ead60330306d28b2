"""Output types on given vectors, against numpy and sentence-transformers' quantize_embeddings."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from sentence_transformers.util.quantization import quantize_embeddings

from anydim.heads.quantize import quantize
from anydim.types import OutputDtype

ELEMENTS = st.one_of(st.floats(-1, 1, width=32), st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5]))
VECTORS = arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 67)), elements=ELEMENTS)


def written(vectors: NDArray[np.float32], dtype: OutputDtype) -> tuple[NDArray[np.generic], NDArray[np.float32] | None]:
    """The head's answer as numpy arrays."""
    values, scales_B = quantize(torch.from_numpy(vectors), dtype)
    return values.numpy(), None if scales_B is None else scales_B.numpy()


@given(vectors=VECTORS)
def test_float32_is_the_vector(vectors: NDArray[np.float32]) -> None:
    values, scales = written(vectors, OutputDtype.FLOAT32)
    np.testing.assert_array_equal(values, vectors)
    assert scales is None


@given(vectors=VECTORS)
def test_float16_is_numpys_rounding(vectors: NDArray[np.float32]) -> None:
    values, scales = written(vectors, OutputDtype.FLOAT16)
    np.testing.assert_array_equal(values, vectors.astype(np.float16))
    assert scales is None


@pytest.mark.parametrize("dtype", [OutputDtype.INT8, OutputDtype.UINT8])
@given(vectors=VECTORS)
def test_bytes_follow_the_formula(dtype: OutputDtype, vectors: NDArray[np.float32]) -> None:
    values, scales = written(vectors, dtype)
    assert values.dtype == dtype.numpy
    assert scales is not None
    assert (scales > 0).all()
    levels = values.astype(np.int64) - (128 if dtype is OutputDtype.UINT8 else 0)
    peaks = np.abs(vectors.astype(np.float64)).max(axis=1, keepdims=True)
    exact = np.divide(127 * vectors.astype(np.float64), peaks, out=np.zeros(vectors.shape), where=peaks > 1e-30)
    np.testing.assert_allclose(levels, exact, atol=0.5 + 1e-4)
    np.testing.assert_allclose(levels * scales[:, None], vectors, atol=0.501 * scales.max())
    assert (np.abs(levels).max(axis=1) == np.where(peaks[:, 0] > 1e-30, 127, 0)).all()


@pytest.mark.parametrize("dtype", [OutputDtype.BINARY, OutputDtype.UBINARY])
@given(vectors=VECTORS)
def test_binary_is_that_of_sentence_transformers(dtype: OutputDtype, vectors: NDArray[np.float32]) -> None:
    values, scales = written(vectors, dtype)
    theirs = quantize_embeddings(vectors, precision=dtype.value)
    assert values.dtype == theirs.dtype
    np.testing.assert_array_equal(values, theirs)
    assert values.shape[1] == dtype.stored(vectors.shape[1])
    assert scales is None


@pytest.mark.parametrize("dtype", list(OutputDtype))
def test_zero_vectors_have_a_form(dtype: OutputDtype) -> None:
    values, scales = written(np.zeros((2, 10), np.float32), dtype)
    zero = {OutputDtype.UINT8: 128, OutputDtype.BINARY: -128}.get(dtype, 0)
    assert (values.astype(np.float64) == zero).all()
    assert scales is None or np.isfinite(scales).all()


@given(vectors=VECTORS)
def test_int8_and_uint8_keep_the_direction(vectors: NDArray[np.float32]) -> None:
    signed, unsigned = (written(vectors, dtype)[0].astype(np.int64) for dtype in (OutputDtype.INT8, OutputDtype.UINT8))
    np.testing.assert_array_equal(signed, unsigned - 128)
    for row, levels in zip(vectors.astype(np.float64), signed, strict=True):
        if np.linalg.norm(row) > 1e-3 and len(row) > 1:
            cosine = row @ levels / np.linalg.norm(row) / np.linalg.norm(levels)
            assert cosine > 0.999


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    vectors = np.random.default_rng(1).normal(size=(5, 33)).astype(np.float32) * np.logspace(-3, 3, 5)[:, None]
    vectors = vectors.astype(np.float32)
    for dtype in OutputDtype:
        together, scales = written(vectors, dtype)
        for place in range(5):
            alone, scale = written(vectors[place : place + 1], dtype)
            np.testing.assert_array_equal(together[place], alone[0])
            assert scale is None or scales is None or scale[0] == scales[place]


def test_every_type_has_a_number_and_a_size() -> None:
    assert [OutputDtype.from_code(dtype.code) for dtype in OutputDtype] == list(OutputDtype)
    sizes = {dtype: dtype.stored(60) * dtype.numpy.itemsize for dtype in OutputDtype}
    assert sizes == {"float32": 240, "float16": 120, "int8": 60, "uint8": 60, "binary": 8, "ubinary": 8}

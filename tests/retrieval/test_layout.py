"""The stored forms are those that the engine itself gives, bit for bit."""

import numpy as np
import pytest

from anydim import Embedder
from anydim.errors import ConfigError
from anydim.retrieval.layout import Layout, cut, read_layout, written

from .conftest import articles

TEXTS = [document.text[:300] for document in articles("en", "zh")[:20]]


@pytest.mark.parametrize(("ours", "theirs"), [("float32", "float32"), ("int8", "int8"), ("binary", "ubinary")])
@pytest.mark.parametrize("dim", [32, 64, 384])
def test_a_cut_and_written_vector_is_the_engine_s_own(embedder: Embedder, dim: int, ours: str, theirs: str) -> None:
    full_ND = embedder.embed(TEXTS, output_dim=384, truncate="end")
    wanted_Nd = embedder.embed(TEXTS, output_dim=dim, output_dtype=theirs, truncate="end")
    found_Nd = written(cut(full_ND, dim), ours)
    assert found_Nd.dtype == wanted_Nd.dtype
    if ours == "float32":
        np.testing.assert_allclose(found_Nd, wanted_Nd, atol=1e-6)
    else:  # a value that lies on the border between two levels may go either way
        assert np.mean(found_Nd != wanted_Nd) < 0.005


def test_a_row_of_zeros_stays_one() -> None:
    zeros = np.zeros((1, 64), np.float32)
    assert not cut(zeros, 32).any()
    assert not written(cut(zeros, 32), "int8").any()


@pytest.mark.parametrize("body", [b"", b"{}", b'{"format": 1}', b"[]"])
def test_a_damaged_layout_is_refused(body: bytes) -> None:
    with pytest.raises(ConfigError, match="does not say how it was made"):
        read_layout(body)


def test_bytes_of_a_vector() -> None:
    layout = Layout(
        model="m",
        dim=384,
        dtype="float32",
        coarse_dim=64,
        coarse_dtype="int8",
        chunk_tokens=256,
        chunk_overlap=32,
        probe=[],
    )
    assert (layout.coarse_bytes, layout.full_bytes) == (64, 1536)

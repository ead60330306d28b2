"""All ways of writing a vector give the same values; the lines of docs/output-types.md read them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from anydim import testing

NUMPY = {"float32": "<f4", "float16": "<f2", "int8": "i1", "uint8": "u1", "binary": "i1", "ubinary": "u1"}
PAGE = (Path(__file__).parents[2] / "docs" / "output-types.md").read_text(encoding="utf-8")
RAW, ARROW = "application/octet-stream", "application/vnd.apache.arrow.stream"


@pytest.fixture(scope="module")
def fine() -> Iterator[TestClient]:
    """A server of any dimension up to 192."""
    with testing.client(testing.FakeModel(width=192), dim_step=1) as client:
        yield client


def post(http: TestClient, accept: str = "*/*", **fields: Any) -> Any:
    response = http.post("/v1/embeddings", json=fields, headers={"Accept": accept})
    assert response.status_code == 200, response.text
    return response


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.text(max_size=30), min_size=1, max_size=4),
    dim=st.integers(1, 192),
    dtype=st.sampled_from(list(NUMPY)),
    normalize=st.booleans(),
)
def test_all_forms_agree(fine: TestClient, texts: list[str], dim: int, dtype: str, normalize: bool) -> None:
    fields = {"input": texts, "dimensions": dim, "output_dtype": dtype, "normalize": normalize}
    numbers = post(fine, **fields).json()
    packed = post(fine, encoding_format="base64", **fields).json()
    raw = post(fine, RAW, **fields)
    table = pa.ipc.open_stream(post(fine, ARROW, **fields).content).read_all()

    expected = np.array([row["embedding"] for row in numbers["data"]], NUMPY[dtype])
    decoded = [np.frombuffer(base64.b64decode(row["embedding"]), NUMPY[dtype]) for row in packed["data"]]
    matrix = np.frombuffer(raw.content, NUMPY[dtype]).reshape(expected.shape)
    assert np.array_equal(expected, np.array(decoded))
    assert np.array_equal(expected, matrix)
    assert np.array_equal(expected, np.stack(table["embedding"].to_numpy()))
    scales = [row.get("scale") for row in numbers["data"]]
    assert scales == [row.get("scale") for row in packed["data"]]
    assert (scales[0] is not None) == (dtype in ("int8", "uint8")) == ("scale" in table.column_names)


@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize("encoding", ["base64", "float"])
def test_the_decoding_lines_of_the_documentation(fine: TestClient, encoding: str, dtype: str) -> None:
    truth = np.array(post(fine, input="Hello, World", dimensions=100).json()["data"][0]["embedding"], np.float32)
    fields = {"input": "Hello, World", "dimensions": 100, "output_dtype": dtype, "encoding_format": encoding}
    row = post(fine, **fields).json()["data"][0]
    found = run(line(f"JSON, `encoding_format` {encoding}", dtype), row=row, d=100)["vector"]
    if dtype in ("binary", "ubinary"):
        assert np.array_equal(found, truth > 0)
    else:
        bound = {"float32": 0, "float16": 1e-3, "int8": 0.004, "uint8": 0.004}[dtype]
        np.testing.assert_allclose(found, truth, atol=bound)


@pytest.mark.parametrize("dtype", NUMPY)
def test_the_matrix_lines_of_the_documentation(fine: TestClient, dtype: str) -> None:
    fields = {"input": ["a", "bc"], "dimensions": 48, "output_dtype": dtype}
    expected = np.array([row["embedding"] for row in post(fine, **fields).json()["data"]], NUMPY[dtype])
    raw = run(lines("`Accept: application/octet-stream`")[0], response=post(fine, RAW, **fields))["matrix"]
    arrow = {"response": post(fine, ARROW, **fields), "pa": pa}
    for code in lines("`Accept: application/vnd.apache.arrow.stream`"):
        arrow = run(code, **arrow)
    for matrix in (raw, arrow["matrix"]):
        assert matrix.dtype == NUMPY[dtype]
        assert np.array_equal(matrix, expected)


def test_raw_headers(http: TestClient) -> None:
    response = post(http, RAW, input=["ab", "c"], output_dtype="ubinary", dimensions=32)
    assert response.headers["Content-Type"] == RAW
    assert response.headers["X-Embedding-Shape"] == "2,4"
    assert response.headers["X-Embedding-Dtype"] == "ubinary"
    assert response.headers["X-Embedding-Dimensions"] == "32"
    assert response.headers["X-Usage-Prompt-Tokens"] == "5"
    assert response.headers["X-Model"] == "anydim/fake"


def test_mixed_dimensions(http: TestClient) -> None:
    fields = {"input": ["a", "b"], "output_dim": [32, 64]}
    refused = http.post("/v1/embeddings", json=fields, headers={"Accept": RAW})
    assert refused.status_code == 406
    assert "32, 64" in refused.json()["error"]["message"]
    table = pa.ipc.open_stream(post(http, ARROW, **fields).content).read_all()
    assert [len(row) for row in table["embedding"].to_pylist()] == [32, 64]
    assert pa.types.is_list(table.schema.field("embedding").type)


def test_arrow_schema(http: TestClient) -> None:
    table = pa.ipc.open_stream(post(http, ARROW, input=["ab", "c"], output_dtype="int8").content).read_all()
    assert table.schema.field("embedding").type == pa.list_(pa.int8(), 64)
    assert table.schema.field("scale").type == pa.float32()
    assert table.schema.metadata[b"prompt_tokens"] == b"5"
    assert table.schema.metadata[b"dtype"] == b"int8"


def test_arrow_without_pyarrow(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.ipc", None)
    refused = http.post("/v1/embeddings", json={"input": "a"}, headers={"Accept": ARROW})
    assert refused.status_code == 406
    assert "pip install 'anydim[arrow]'" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/html", "application/json"),
        ("Application/Octet-Stream", RAW),
        (f"application/json;q=0.5, {RAW}", RAW),
        (f"{RAW};q=0.1, application/json", "application/json"),
        (f"{RAW};q=0, */*;q=0.1", "application/json"),
        (f"{RAW};q=nonsense", "application/json"),
        (f"text/html, {ARROW};q=0.9, */*;q=0.1", ARROW),
    ],
)
def test_the_accept_header_chooses(http: TestClient, accept: str, kind: str) -> None:
    assert post(http, accept, input="a").headers["Content-Type"] == kind


def lines(section: str) -> list[str]:
    """The code blocks below a heading of the page."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)


def line(section: str, dtype: str) -> str:
    """The code block of one dtype below a heading."""
    text = PAGE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    found = re.search(rf"^{dtype}[^\n]*:\n\n```python\n(.*?)\n```", text, re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


def run(code: str, **names: Any) -> dict[str, Any]:
    """The names after one line of the page."""
    assert "\n" not in code
    space = {"np": np, "base64": base64, **names}
    exec(code, space)
    return space

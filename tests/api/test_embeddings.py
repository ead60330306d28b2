"""POST /v1/embeddings: what each field does, seen in counts of letters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from anydim import testing

COUNTS = {"normalize": False}


def embed(http: TestClient, **fields: Any) -> dict[str, Any]:
    response = http.post("/v1/embeddings", json=fields)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def rows(http: TestClient, **fields: Any) -> list[list[float]]:
    return [row["embedding"] for row in embed(http, **fields)["data"]]


def refused(http: TestClient, **fields: Any) -> dict[str, Any]:
    response = http.post("/v1/embeddings", json=fields)
    assert response.status_code == 400, response.text
    found: dict[str, Any] = response.json()["error"]
    assert found["type"] == "invalid_request_error"
    return found


def test_answer_has_openai_shape(http: TestClient) -> None:
    answer = embed(http, input=["abc", "b"], model="anydim/fake")
    assert answer["object"] == "list"
    assert answer["model"] == "anydim/fake"
    assert [row["index"] for row in answer["data"]] == [0, 1]
    assert all(set(row) == {"object", "index", "embedding"} for row in answer["data"])
    assert answer["data"][0]["object"] == "embedding"
    assert answer["usage"] == {"prompt_tokens": 6, "total_tokens": 6}


def test_single_text_is_a_list_of_one(http: TestClient) -> None:
    assert rows(http, input="abc") == rows(http, input=["abc"])


def test_without_the_prefix(http: TestClient) -> None:
    assert http.post("/embeddings", json={"input": "a"}).json() == embed(http, input="a")


def test_order_is_kept(http: TestClient) -> None:
    texts = ["a" * length for length in (5, 300, 1, 40)]
    assert [row[0] for row in rows(http, input=texts, **COUNTS)] == [5, 300, 1, 40]


def test_vectors_have_length_one_by_default(http: TestClient) -> None:
    found = np.array(rows(http, input=["hello", "World 42"]))
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("field", ["dimensions", "output_dim"])
def test_dimension_is_a_cut_then_a_scaling(http: TestClient, field: str) -> None:
    full = np.array(rows(http, input="Hello, World", **COUNTS)[0])
    cut = np.array(rows(http, input="Hello, World", **{field: 32})[0])
    np.testing.assert_allclose(cut, full[:32] / np.linalg.norm(full[:32]), atol=1e-6)


def test_one_dimension_an_input(http: TestClient) -> None:
    found = rows(http, input=["ab", "cd", "ef"], output_dim=[32, 64, None])
    assert [len(row) for row in found] == [32, 64, 64]


@pytest.mark.parametrize("value", [50, 0, -32, 1.5, "x", True, 4096, {}, 10**30])
@pytest.mark.parametrize("field", ["dimensions", "output_dim"])
def test_other_dimensions_are_refused(http: TestClient, field: str, value: Any) -> None:
    error = refused(http, input="a", **{field: value})
    assert error["param"] == field
    assert error["message"].startswith(f"{field} must be a multiple of 32 between 32 and 64, got {value!r}"[:60])


def test_conflict_and_wrong_lengths_of_dimensions(http: TestClient) -> None:
    assert refused(http, input="a", dimensions=32, output_dim=64)["param"] == "output_dim"
    assert refused(http, input=["a", "b"], dimensions=[32])["param"] == "dimensions"
    assert refused(http, input=["a", "b"], output_dim=[])["param"] == "output_dim"
    assert refused(http, input=["a", "b"], output_dim=[32, 33])["param"] == "output_dim[1]"
    assert len(rows(http, input="a", dimensions=32, output_dim=32)[0]) == 32


def test_null_stands_for_absent(http: TestClient) -> None:
    names = ["model", "encoding_format", "dimensions", "output_dim", "output_dtype", "instruction", "prompt_name"]
    nulls = dict.fromkeys([*names, "input_type", "truncate", "normalize", "user"])
    assert embed(http, input="abc", **nulls) == embed(http, input="abc")


def test_prompts(http: TestClient) -> None:
    plain = rows(http, input="query: zz", **COUNTS)
    assert rows(http, input="zz", input_type="query", **COUNTS) == plain
    assert rows(http, input="zz", prompt_name="query", **COUNTS) == plain
    assert rows(http, input="zz", input_type="document", **COUNTS) == rows(http, input="zz", **COUNTS)
    instructed = rows(http, input="zz", instruction="jj", **COUNTS)
    assert instructed == rows(http, input="Instruct: jj\nQuery:zz", **COUNTS)


def test_prompts_that_contradict(http: TestClient) -> None:
    assert refused(http, input="a", instruction="x", prompt_name="query")["param"] == "instruction"
    assert refused(http, input="a", prompt_name="nope")["param"] == "prompt_name"


def test_usage_counts_the_prompt(http: TestClient) -> None:
    assert embed(http, input="zz", input_type="query")["usage"]["total_tokens"] == len("query: zz") + 1


def test_special_tokens_spelled_out_are_special(http: TestClient) -> None:
    assert rows(http, input="a<|end|>b", **COUNTS)[0][30:32] == [2.0, 2.0]


class TestLongTexts:
    def test_refused_with_the_counts(self, http: TestClient) -> None:
        error = refused(http, input=["a", "b" * 9000])
        assert error["param"] == "input[1]"
        assert error["code"] == "context_length_exceeded"
        assert "9001 tokens" in error["message"]
        assert "8192" in error["message"]

    @pytest.mark.parametrize("value", ["end", True])
    def test_cut_at_the_end(self, http: TestClient, value: Any) -> None:
        answer = embed(http, input="x" + "y" * 9000, truncate=value, **COUNTS)
        assert answer["data"][0]["embedding"][23:25] == [1.0, 8190.0]
        assert answer["usage"]["total_tokens"] == 8192

    def test_cut_at_the_start(self, http: TestClient) -> None:
        assert rows(http, input="x" + "y" * 9000, truncate="start", **COUNTS)[0][23:25] == [0.0, 8191.0]

    @pytest.mark.parametrize("value", ["none", False, None])
    def test_not_cut(self, http: TestClient, value: Any) -> None:
        assert refused(http, input="y" * 9000, truncate=value)["param"] == "input[0]"


class TestTokenIds:
    @pytest.mark.parametrize("ids", [[97, 98], [[97, 98], [99]]])
    def test_refused_by_default_with_both_remedies(self, http: TestClient, ids: Any) -> None:
        error = refused(http, input=ids)
        assert error["param"] == "input"
        assert "check_embedding_ctx_length=False" in error["message"]
        assert "--token-ids model" in error["message"]

    def test_of_the_model(self) -> None:
        with testing.client(token_ids="model") as http:
            texts = rows(http, input=["ab", "c"])
            assert rows(http, input=[[97, 98], [99]]) == texts
            assert rows(http, input=[97, 98, 256]) == texts[:1]
            assert refused(http, input=[[97], [257]])["param"] == "input[1]"
            assert refused(http, input=[97, -1])["param"] == "input[0]"
            assert refused(http, input=[10**40])["param"] == "input[0]"
            assert refused(http, input=[[]])["param"] == "input[0]"
            assert refused(http, input=[97], instruction="x")["param"] == "instruction"


class TestModelNames:
    @pytest.mark.parametrize("name", ["anydim/fake", "fake", "FAKE", "AnyDim/Fake"])
    def test_known(self, http: TestClient, name: str) -> None:
        assert embed(http, input="a", model=name)["model"] == "anydim/fake"
        assert http.get(f"/v1/models/{name}").json()["root"] == "anydim/fake"

    def test_unknown_lists_the_names(self, http: TestClient) -> None:
        for response in (
            http.post("/v1/embeddings", json={"input": "a", "model": "ada"}),
            http.get("/v1/models/ada"),
            http.get("/models/open/ai/ada"),
        ):
            assert response.status_code == 404
            assert response.json()["error"]["code"] == "model_not_found"
            assert response.json()["error"]["param"] == "model"
            assert "anydim/fake" in response.json()["error"]["message"]

    def test_aliases(self) -> None:
        with testing.client(served_model_name=["text-embedding-3-small"]) as http:
            assert embed(http, input="a", model="text-embedding-3-small")["model"] == "text-embedding-3-small"
            assert embed(http, input="a", model="anydim/fake")["model"] == "text-embedding-3-small"
            names = [model["id"] for model in http.get("/v1/models").json()["data"]]
            assert names == ["text-embedding-3-small", "anydim/fake"]
            assert http.post("/v1/embeddings", json={"input": "a", "model": "ada"}).status_code == 404

    def test_star_takes_every_name(self) -> None:
        with testing.client(served_model_name=["*"]) as http:
            assert embed(http, input="a", model="whatever")["model"] == "anydim/fake"
            assert [model["id"] for model in http.get("/models").json()["data"]] == ["anydim/fake"]


def test_unknown_fields(http: TestClient) -> None:
    assert embed(http, input="a", colour="red") == embed(http, input="a")
    with testing.client(strict=True) as strict:
        error = refused(strict, input="a", dimension=32)
        assert error["param"] == "dimension"
        assert "did you mean dimensions?" in error["message"]
        assert len(rows(strict, input="a", dimensions=32)[0]) == 32

"""Hostile and broken requests: a clear 400 or an answer, never a 500; and the server goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

BROKEN = {
    "empty": b"",
    "white space": b" \n",
    "truncated": b'{"input": "a',
    "trailing": b'{"input": "a"} x',
    "not JSON": b"input=a",
    "NaN": b'{"input": "a", "dimensions": NaN}',
    "infinity": b'{"input": "a", "dimensions": Infinity}',
    "overflowing number": b'{"input": "a", "dimensions": 1e400}',
    "huge integer": b'{"input": "a", "dimensions": 1' + b"0" * 5000 + b"}",
    "lone surrogate": b'{"input": "\\ud800"}',
    "lone low surrogate": b'{"input": ["a", "x\\udc00y"]}',
    "invalid UTF-8": b'{"input": "\xff\xfe"}',
    "invalid UTF-8 elsewhere": b'{"input": "a", "user": "\xc3"}',
    "encoded surrogate": b'{"input": "\xed\xa0\x80"}',
    "UTF-16": '{"input": "a"}'.encode("utf-16"),
    "deep nesting": b'{"input": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "deep nesting aside": b'{"input": "a", "x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "deep objects": b'{"dimensions": ' * 100_000,
}
WRONG = [
    ([], None, "expected an object, but got an array"),
    ("text", None, "expected an object, but got a string"),
    (None, None, "expected an object, but got null"),
    ({}, "input", "Missing required parameter: 'input'"),
    ({"input": None}, "input", "expected one of a string or an array, but got null"),
    ({"input": {}}, "input", "but got an object"),
    ({"input": 5}, "input", "but got an integer"),
    ({"input": True}, "input", "but got a boolean"),
    ({"input": []}, "input", "at least one"),
    ({"input": ["a", None]}, "input[1]", "but got null"),
    ({"input": ["a", "b", 1.5]}, "input[2]", "but got a number"),
    ({"input": ["a", 1]}, "input[1]", "expected a string, but got an integer"),
    ({"input": [1, "a"]}, "input[1]", "expected an integer, but got a string"),
    ({"input": [[1], "a"]}, "input[1]", "expected an array, but got a string"),
    ({"input": [[1, "a"]]}, "input[0][1]", "expected an integer, but got a string"),
    ({"input": [[[1]]]}, "input[0][0]", "expected an integer, but got an array"),
    ({"input": "a", "model": 3}, "model", "expected a string, but got an integer"),
    ({"input": "a", "encoding_format": "hex"}, "encoding_format", "'base64' and 'float'"),
    ({"input": "a", "encoding_format": 3}, "encoding_format", "expected a string"),
    ({"input": "a", "output_dtype": "int4"}, "output_dtype", "'binary' and 'float16' and 'float32'"),
    ({"input": "a", "truncate": "middle"}, "truncate", "'end' and 'none' and 'start'"),
    ({"input": "a", "truncate": 1}, "truncate", "a boolean or a string"),
    ({"input": "a", "normalize": "yes"}, "normalize", "expected a boolean"),
    ({"input": "a", "input_type": "search_query"}, "input_type", "'document' and 'query'"),
    ({"input": "a", "instruction": ["x"]}, "instruction", "expected a string, but got an array"),
]


@pytest.fixture(autouse=True)
def goes_on(http: TestClient) -> Any:
    """After each test the server still answers."""
    yield
    response = http.post("/v1/embeddings", json={"input": "aab", "normalize": False})
    assert response.status_code == 200
    assert response.json()["data"][0]["embedding"][:2] == [2.0, 1.0]


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_broken_bodies(http: TestClient, body: bytes) -> None:
    response = http.post("/v1/embeddings", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) < 200


@pytest.mark.parametrize(("body", "param", "words"), WRONG)
def test_wrong_types_name_the_field(http: TestClient, body: Any, param: str | None, words: str) -> None:
    response = http.post("/v1/embeddings", content=json.dumps(body))
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    assert words in error["message"]
    assert error["code"] == "invalid_value"


def test_any_content_type_is_read_as_json(http: TestClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        response = http.post("/v1/embeddings", content=b'{"input": "a"}', headers={"Content-Type": kind})
        assert response.status_code == 200


def test_ten_thousand_texts(http: TestClient) -> None:
    texts = ["a" * (index % 7) for index in range(10_000)]
    answer = http.post("/v1/embeddings", json={"input": texts, "normalize": False, "dimensions": 32}).json()
    assert [row["embedding"][0] for row in answer["data"]] == [index % 7 for index in range(10_000)]
    assert [row["index"] for row in answer["data"]] == list(range(10_000))


def test_empty_text(http: TestClient) -> None:
    answer = http.post("/v1/embeddings", json={"input": "", "normalize": False}).json()
    assert answer["usage"]["total_tokens"] == 1
    assert sum(answer["data"][0]["embedding"]) == 1


def test_five_megabytes(http: TestClient) -> None:
    text = "a" * 5_000_000
    response = http.post("/v1/embeddings", json={"input": text})
    assert response.status_code == 400
    assert "at least" in response.json()["error"]["message"]
    assert "8192 tokens" in response.json()["error"]["message"]
    cut = http.post("/v1/embeddings", json={"input": text, "truncate": "end", "normalize": False}).json()
    assert cut["data"][0]["embedding"][0] == 8191


@pytest.mark.parametrize(
    ("text", "component", "count"),
    [("\0\0a", 28, 2), ("é", 29, 2), ("\U0001f600", 29, 4), ("\ufffe\uffff", 29, 6), ("\r\n\t ", 27, 4)],
)
def test_odd_characters_are_text(http: TestClient, text: str, component: int, count: int) -> None:
    answer = http.post("/v1/embeddings", json={"input": text, "normalize": False}).json()
    assert answer["data"][0]["embedding"][component] == count


@pytest.mark.parametrize("field", ["model", "prompt_name", "output_dtype", "encoding_format", "dimensions"])
def test_messages_quote_little_of_what_was_sent(http: TestClient, field: str) -> None:
    response = http.post("/v1/embeddings", json={"input": "a", field: "secret " * 10_000})
    assert response.status_code in (400, 404)
    assert len(response.json()["error"]["message"]) <= 1000


def test_repeated_fields_and_keys_take_the_last(http: TestClient) -> None:
    response = http.post("/v1/embeddings", content=b'{"input": "a", "input": "bb", "normalize": false}')
    assert response.json()["data"][0]["embedding"][:2] == [0.0, 2.0]

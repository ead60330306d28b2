"""Our fields for dimension, prompt and truncation mean the same on the embedding routes of all dialects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from anydim.testing import FakeModel

Read = Callable[[Any], Any]

ROUTES: dict[str, tuple[str, Read]] = {
    "/v1/embeddings": ("input", lambda answer: answer["data"][0]["embedding"]),
    "/embed": ("inputs", lambda answer: answer[0]),
    "/embed_all": ("inputs", lambda answer: answer[0][-1]),
    "/pooling": ("input", lambda answer: answer["data"][0]["data"]),
    "/v1/embed": ("texts", lambda answer: answer["embeddings"][0]),
    "/v2/embed": ("texts", lambda answer: answer["embeddings"]["float"][0]),
    "/api/embed": ("input", lambda answer: answer["embeddings"][0]),
    "/api/embeddings": ("prompt", lambda answer: answer["embedding"]),
}


def ask(http: TestClient, path: str, text: str, **fields: Any) -> Any:
    field, _ = ROUTES[path]
    normalize = {"normalize": True} if path == "/embed_all" else {}
    body = {field: [text] if path != "/api/embeddings" else text, **normalize, **fields}
    return http.post(path, json=body)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("fields", "prompt"),
    [
        ({}, ""),
        ({"input_type": "query"}, "query: "),
        ({"input_type": "document"}, ""),
        ({"prompt_name": "query"}, "query: "),
        ({"instruction": "Find it"}, "Instruct: Find it\nQuery:"),
    ],
)
def test_prompt_and_dimension(http: TestClient, path: str, fields: dict[str, str], prompt: str) -> None:
    answer = ask(http, path, "Abba", output_dim=32, **fields)
    assert answer.status_code == 200, answer.text
    cut = FakeModel().vector(prompt + "Abba")[:32]
    np.testing.assert_allclose(ROUTES[path][1](answer.json()), cut / np.linalg.norm(cut), atol=1e-6)


@pytest.mark.parametrize("path", ROUTES)
def test_a_wrong_dimension_is_refused(http: TestClient, path: str) -> None:
    answer = ask(http, path, "Abba", output_dim=33)
    assert answer.status_code in (400, 422)
    assert "output_dim must be a multiple of 32" in answer.text


@pytest.mark.parametrize("path", [path for path in ROUTES if path != "/api/embeddings"])
def test_truncation_in_our_words(http: TestClient, path: str) -> None:
    text = "a" * 100 + "b" * 9000
    start, end = (ROUTES[path][1](ask(http, path, text, truncate=where).json()) for where in ("start", "end"))
    assert start[0] == 0, "the start is gone"
    assert end[0] > 0
    refused = ask(http, path, text, truncate="none")
    assert refused.status_code in (400, 422)
    assert "9101" in refused.text

"""/openapi.json tells the truth about requests, answers and errors; /docs shows it without scripts."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient

from anydim import testing
from anydim.api.dialects import openai_fields
from anydim.api.dialects.openai_fields import EmbeddingList, EmbeddingRequest, ModelInfo, ModelList


@pytest.fixture(scope="module")
def document(http: TestClient) -> Any:
    return http.get("/openapi.json").json()


def test_every_reference_leads_somewhere(document: Any) -> None:
    text = msgspec.json.encode(document).decode()
    for name in set(re.findall(r'"#/components/schemas/(\w+)"', text)):
        assert name in document["components"]["schemas"]
    assert document["openapi"].startswith("3.1")
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))


def test_every_route_is_documented() -> None:
    with testing.app() as app:
        paths = {route.path.replace("{name:path}", "{model}") for route in app.routes}  # type: ignore[attr-defined]
        paths = {path for path in paths if not path.startswith("/page/")}  # files of the page, no interface
        with TestClient(app) as http:
            documented = set(http.get("/openapi.json").json()["paths"])
    assert documented == paths


def test_fields_and_input_kinds(document: Any) -> None:
    schema = document["components"]["schemas"]["EmbeddingRequest"]
    assert schema["required"] == ["input"]
    assert len(schema["properties"]["input"]["anyOf"]) == 4
    assert set(schema["properties"]) == set(EmbeddingRequest.__struct_fields__)
    assert all("description" in field for field in schema["properties"].values())
    for name, field in schema["properties"].items():
        assert name == "input" or {"type": "null"} in field["anyOf"]


def test_the_documented_errors_are_those_that_come(document: Any, http: TestClient) -> None:
    documented = document["paths"]["/v1/embeddings"]["post"]["responses"]
    assert set(documented) == {
        "200",
        "400",
        "401",
        "404",
        "405",
        "406",
        "413",
        "415",
        "422",
        "429",
        "500",
        "503",
        "504",
    }
    example = document["paths"]["/v1/embeddings"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert http.post("/v1/embeddings", json=example).status_code == 200


@pytest.mark.parametrize(
    ("path", "struct"), [("/v1/models", ModelList), ("/v1/models/fake", ModelInfo), ("/v1/embeddings", EmbeddingList)]
)
def test_answers_fit_their_schema(http: TestClient, path: str, struct: type[msgspec.Struct]) -> None:
    fields = {"input": ["a", "b"], "output_dtype": "int8"}
    answer = http.post(path, json=fields) if path == "/v1/embeddings" else http.get(path)
    found = msgspec.json.decode(answer.content, type=struct)
    assert msgspec.to_builtins(found) == answer.json()


def test_a_key_is_documented_where_one_is_asked_for(document: Any) -> None:
    assert "security" not in document
    with testing.client(api_key=["k"]) as http:
        locked = http.get("/openapi.json", headers={"api-key": "k"}).json()
        page = http.get("/docs", headers={"api-key": "k"}).text
    assert locked["security"] == [{"key": []}]
    assert locked["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert locked["paths"]["/health"]["get"]["security"] == []
    assert "Authorization: Bearer" in page


class Tags(HTMLParser):
    """The tags and addresses of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links |= {str(value) for name, value in attrs if name in ("href", "src")}


def test_the_description_needs_no_scripts_and_no_network(http: TestClient) -> None:
    response = http.get("/docs")
    page = Tags(response.text)
    assert response.headers["Content-Type"].startswith("text/html")
    assert not page.tags & {"script", "img", "link", "iframe"}
    assert page.links <= {"openapi.json"}
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]


def test_the_page_shows_every_field(http: TestClient) -> None:
    page = http.get("/docs").text
    for name in openai_fields.EmbeddingRequest.__struct_fields__:
        assert f"<code>{name}</code>" in page
    assert "/v1/embeddings" in page


def test_a_model_name_is_escaped() -> None:
    with testing.client(served_model_name=["<script>alert('x')</script>"]) as http:
        page = http.get("/docs").text
    assert "<script" not in page
    assert "&lt;script&gt;" in page

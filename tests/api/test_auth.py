"""Keys and origins: a walk over every route, and what browsers may do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from anydim import testing
from anydim.api.auth import read_keys
from anydim.config import ServerSettings
from anydim.errors import ConfigError

OPEN = {"/", "/health", "/ready"}


@pytest.fixture(scope="module")
def app() -> Iterator[Starlette]:
    with testing.app(api_key=["first key", "second"]) as application:
        yield application


@pytest.fixture(scope="module")
def locked(app: Starlette) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


def test_every_route_but_three_needs_a_key(app: Starlette, locked: TestClient) -> None:
    walked = 0
    for route in app.routes:
        assert isinstance(route, Route)
        path = route.path.replace("{name:path}", "anydim/fake")
        for method in route.methods or ():
            walked += 1
            refused = locked.request(method, path)
            if path in OPEN:
                assert refused.status_code == 200
                continue
            assert refused.status_code == 401, (method, path)
            assert refused.headers["WWW-Authenticate"] == "Bearer"
            body = {"input": "a"} if method == "POST" else None
            keyed = locked.request(method, path, json=body, headers={"Authorization": "Bearer second"})
            assert keyed.status_code == 200, (method, path)
    assert walked > 15


@pytest.mark.parametrize("path", ["/nope", "/health/", "/v1//health", "/HEALTH", "/.//health", "/ready/x", "/%2e"])
def test_nothing_else_is_open(locked: TestClient, path: str) -> None:
    assert locked.get(path, follow_redirects=False).status_code == 401


def test_a_refusal_has_openai_shape_and_tells_no_key(locked: TestClient) -> None:
    missing = locked.get("/v1/models").json()["error"]
    wrong = locked.get("/v1/models", headers={"Authorization": "Bearer secret2"}).json()["error"]
    assert missing["code"] == wrong["code"] == "invalid_api_key"
    assert "Authorization: Bearer" in missing["message"]
    assert "secret" not in wrong["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer first key"},
        {"Authorization": "bearer second"},
        {"api-key": "second"},
        {"X-API-Key": "first key"},
        {"Authorization": "Bearer wrong", "x-api-key": "second"},
    ],
)
def test_ways_to_send_a_key(locked: TestClient, headers: dict[str, str]) -> None:
    assert locked.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "second", "Basic second", "Bearer secon", "Bearer second2"])
def test_other_keys_are_refused(locked: TestClient, value: str) -> None:
    assert locked.get("/v1/models", headers={"Authorization": value}).status_code == 401


def test_a_websocket_needs_a_key_too(locked: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect), locked.websocket_connect("/v1/embeddings"):
        pass


def test_keys_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("one\n\n  two \n", encoding="utf-8")
    assert read_keys(ServerSettings(api_key=("zero",), api_key_file=str(file))) == ("zero", "one", "two")
    with testing.client(api_key_file=str(file)) as http:
        assert http.get("/v1/models").status_code == 401
        assert http.get("/v1/models", headers={"api-key": "two"}).status_code == 200


def test_a_file_without_keys_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n \n", encoding="utf-8")
    for settings in (
        ServerSettings(api_key_file=str(tmp_path / "empty")),
        ServerSettings(api_key_file=str(tmp_path / "absent")),
        ServerSettings(api_key=("",)),
    ):
        with pytest.raises(ConfigError):
            read_keys(settings)


def test_no_origin_is_allowed_by_default(http: TestClient) -> None:
    response = http.get("/v1/models", headers={"Origin": "https://example.org"})
    assert "access-control-allow-origin" not in response.headers


def test_an_allowed_origin_reads_refusals_too() -> None:
    with testing.client(cors_origin=["https://example.org"], api_key=["k"]) as http:
        preflight = http.options(
            "/v1/embeddings",
            headers={
                "Origin": "https://example.org",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type",
            },
        )
        assert preflight.status_code == 200
        refused = http.get("/v1/models", headers={"Origin": "https://example.org"})
        assert refused.status_code == 401
        for response in (preflight, refused):
            assert response.headers["access-control-allow-origin"] == "https://example.org"
        other = http.get("/v1/models", headers={"Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers

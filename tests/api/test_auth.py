"""Keys and origins: a walk over every route, and what browsers may do."""

from __future__ import annotations

import gc
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from anydim import testing
from anydim.api.app import create_app
from anydim.api.auth import KeyRing
from anydim.api.models import Models, ServedModel
from anydim.api.shell import FILES
from anydim.cli.listen import is_loopback, own_hosts
from anydim.config import ServerSettings
from anydim.errors import ConfigError

OPEN = {"/", "/health", "/ready", *(f"/page/{name}" for name in FILES)}


@pytest.fixture(scope="module")
def app() -> Iterator[Starlette]:
    with testing.app(api_key=["first key", "second"]) as application:
        yield application


@pytest.fixture(scope="module")
def locked(app: Starlette) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


def test_every_route_but_probes_and_the_page_s_files_needs_a_key(app: Starlette, locked: TestClient) -> None:
    walked = 0
    for route in app.routes:
        assert isinstance(route, Route)
        path = re.sub(r"\{[^}]+\}", "anydim/fake", route.path)
        for method in route.methods or ():
            walked += 1
            refused = locked.request(method, path)
            if path in OPEN and method != "POST":
                assert refused.status_code == 200
                continue
            assert refused.status_code == 401, (method, path)
            assert refused.headers["WWW-Authenticate"] == "Bearer"
            keyed = locked.request(method, path, content=b"{}", headers={"Authorization": "Bearer second"})
            assert keyed.status_code not in (401, 403, 404, 405), (method, path)
    assert walked > 15


@pytest.mark.parametrize(
    "path",
    ["/nope", "/health/", "/v1//health", "/HEALTH", "/.//health", "/ready/x", "/%2e", "/page", "/page/", "/page/x.js"],
)
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
    file.write_text("# who may ask\none\n\n  search: two \n", encoding="utf-8")
    with testing.client(api_key=["zero"], api_key_file=str(file)) as http:
        assert http.get("/v1/models").status_code == 401
        for key in ("zero", "one", "two"):
            assert http.get("/v1/models", headers={"api-key": key}).status_code == 200
        for key in ("search: two", "search", "# who may ask", ":two"):
            assert http.get("/v1/models", headers={"api-key": key}).status_code == 401


def test_names_of_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("batch:b\nc\n", encoding="utf-8")
    keys = KeyRing(["a", "search:x", "search:y", "odd:k:e:y"], file)
    named = {b"a": "key-1", b"x": "search", b"y": "search", b"k:e:y": "odd", b"b": "batch", b"c": "key-6", b"z": None}
    assert {key: keys.name_of(key) for key in named} == named
    assert len(keys) == 6


def test_the_file_is_read_again_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("search:old", encoding="utf-8")
    keys = KeyRing(["kept"], file)
    file.write_text("search:new", encoding="utf-8")
    assert keys.name_of(b"new") is None
    keys.reload()
    assert [keys.name_of(key) for key in (b"old", b"new", b"kept")] == [None, "search", "key-1"]
    for broken in ("", "# none", "bad name:key", "name:", "a:new\nb:new"):
        file.write_text(broken, encoding="utf-8")
        with pytest.raises(ConfigError):
            keys.reload()
        assert keys.name_of(b"new") == "search"


def test_no_key_is_kept_as_text() -> None:
    keys = KeyRing(["search:a-very-secret-key"])
    held = [*gc.get_referents(keys), *vars(keys).values()]
    assert "a-very-secret-key" not in repr([held, [vars(keys)]])
    assert KeyRing(["k"])._names.keys() != KeyRing(["k"])._names.keys()  # hashes differ between processes


@pytest.mark.parametrize(
    "settings",
    [{"api_key": [""]}, {"api_key": ["name:"]}, {"api_key": ["a name:k"]}, {"api_key": ["a:k", "b:k"]}],
)
def test_wrong_keys_are_refused_without_being_told(settings: dict[str, list[str]]) -> None:
    with pytest.raises(ConfigError) as caught:
        KeyRing.of(ServerSettings(api_key=tuple(settings["api_key"])))
    assert "--api-key" in caught.value.message or "two names" in caught.value.message


def test_a_file_without_keys_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n \n", encoding="utf-8")
    for name in ("empty", "absent"):
        with pytest.raises(ConfigError, match="api-key-file"):
            KeyRing.of(ServerSettings(api_key_file=str(tmp_path / name)))
    assert KeyRing.of(ServerSettings()) is None


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


@pytest.mark.parametrize("path", ["/", "/docs", "/health", "/v1/models", "/nowhere"])
def test_every_answer_is_kept_from_caches_and_guesses(http: TestClient, path: str) -> None:
    headers = http.get(path).headers
    assert headers.get_list("x-content-type-options") == ["nosniff"]
    assert headers.get_list("cache-control") == ["no-store"]


def test_a_page_cannot_be_framed_and_loads_nothing(http: TestClient) -> None:
    headers = http.get("/").headers
    assert headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"


OWN = ("localhost", "127.0.0.1")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:30000"}, 200),
        ({"Host": "LOCALHOST"}, 200),
        ({"Host": "127.0.0.1:1"}, 200),
        ({"Host": "rebound.example"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": "localhost:30000", "Origin": "http://localhost:30000"}, 200),
        ({"Host": "localhost:30000", "Origin": "http://localhost:3000"}, 403),
        ({"Host": "localhost:30000", "Origin": "https://evil.example"}, 403),
        ({"Host": "localhost:30000", "Origin": "null"}, 403),
    ],
)
def test_strangers_pages_cannot_use_an_open_server(headers: dict[str, str], status: int) -> None:
    served = ServedModel(intake=testing.intake())
    with (
        testing.engine() as engine,
        TestClient(create_app(Models([served]), engine, ServerSettings(), hosts=OWN)) as http,
    ):
        answer = http.post(
            "/v1/embeddings", content=b'{"input": "a"}', headers={"Content-Type": "text/plain", **headers}
        )
        assert answer.status_code == status
        assert status == 200 or answer.json()["error"]["code"] == "foreign_origin"
        assert http.get("/health", headers=headers).status_code == 200


def test_a_server_is_its_machine_s_own_and_closed_to_pages_unless_told_otherwise() -> None:
    assert is_loopback(ServerSettings().host)
    assert ServerSettings().cors_origin == ()


def test_own_hosts_are_those_of_a_loopback_address() -> None:
    assert own_hosts(ServerSettings(host="0.0.0.0")) is None
    assert "box" in (own_hosts(ServerSettings(allowed_host=("box",))) or ())

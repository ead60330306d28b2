"""What goes wrong below floor 1, and what HTTP refuses: statuses, shapes, headers, logs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient

from anydim import errors, testing
from anydim.api.app import create_app
from anydim.api.models import Models, ServedModel
from anydim.api.operations import Operation
from anydim.api.status import TABLE, Dialect, ErrorBody
from anydim.config import ServerSettings
from anydim.engine.handle import Health
from anydim.engine.metrics import EngineCounts
from anydim.errors import ComputeFailed, Overloaded, Unavailable
from anydim.types import Item, Output

from .conftest import with_engine

GOOD = Health(True, True)


@dataclass
class Scripted:
    """An engine that does as the test says."""

    act: Callable[[Sequence[Item]], list[Output]] = lambda items: [Output(np.zeros(item.dim, "<f4")) for item in items]
    state: Health = GOOD
    counted: EngineCounts | None = None

    async def run(self, items: Sequence[Item]) -> list[Output]:
        return self.act(items)

    def health(self) -> Health:
        return self.state

    def counts(self) -> EngineCounts | None:
        return self.counted

    def facts(self) -> None:
        return None

    def engines(self) -> tuple[Scripted, ...]:
        return (self,)


def raising(error: Exception) -> Scripted:
    def act(items: Sequence[Item]) -> list[Output]:
        raise error

    return Scripted(act)


def test_overload() -> None:
    with with_engine(raising(Overloaded("the queue is full", retry_after=2.3))) as http:
        response = http.post("/v1/embeddings", json={"input": "a"})
    assert response.status_code == 429
    assert response.headers["Retry-After"] == "3"
    assert response.json()["error"]["type"] == "rate_limit_error"


def test_unavailable() -> None:
    with with_engine(raising(Unavailable("the engine is starting"))) as http:
        response = http.post("/v1/embeddings", json={"input": "a"})
    assert response.status_code == 503
    assert response.json()["error"]["message"] == "the engine is starting"


@pytest.mark.parametrize("accept", ["application/json", "application/octet-stream"])
def test_an_input_that_failed_is_named(accept: str) -> None:
    def act(items: Sequence[Item]) -> list[Output]:
        good = Output(np.zeros(64, "<f4"))
        return [good, Output(np.empty(0, "<f4"), error=ComputeFailed("no finite vector")), good]

    with with_engine(Scripted(act)) as http:
        response = http.post("/v1/embeddings", json={"input": ["a", "b", "c"]}, headers={"Accept": accept})
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "input[1]: no finite vector"


def test_a_surprise_is_a_500_that_leaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), with_engine(raising(KeyError("private words"))) as http:
        response = http.post("/v1/embeddings", json={"input": "private words"}, headers={"X-Request-Id": "abc-1"})
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert "abc-1" in response.json()["error"]["message"]
    assert "private" not in response.text
    ours = [record for record in caplog.records if record.name.startswith("anydim")]
    assert any("KeyError" in record.getMessage() and "abc-1" in record.getMessage() for record in ours)
    assert "private" not in caplog.text


def test_probes_follow_the_engine() -> None:
    engine = Scripted()
    with with_engine(engine) as http:
        assert [http.get(path).status_code for path in ("/health", "/ready")] == [200, 200]
        engine.state = Health(True, False, "warming up")
        assert [http.get(path).status_code for path in ("/health", "/ready")] == [200, 503]
        engine.state = Health(False, False, "stuck for 61 s")
        assert [http.get(path).status_code for path in ("/health", "/ready")] == [503, 503]
        assert http.get("/health").json() == {"status": "unavailable", "reason": "stuck for 61 s"}


def test_draining_is_not_ready_but_healthy_and_still_answers() -> None:
    app = create_app(Models([ServedModel(intake=testing.intake())]), Scripted(), ServerSettings())
    with TestClient(app) as http:
        app.state.draining.now = True
        assert http.get("/ready").status_code == 503
        assert http.get("/health").status_code == 200
        assert http.post("/v1/embeddings", json={"input": "a"}).status_code == 200


def test_stop_is_awaited_at_the_end() -> None:
    stopped = []

    async def stop() -> None:
        stopped.append(True)

    with TestClient(
        create_app(Models([ServedModel(intake=testing.intake())]), Scripted(), ServerSettings(), stop=stop)
    ) as http:
        http.get("/health")
        assert not stopped
    assert stopped


def test_further_routes_stand_first_behind_the_keys_and_in_the_envelope() -> None:
    async def page(request: Request) -> Response:
        return PlainTextResponse("ours")

    async def full(request: Request) -> Response:
        raise Overloaded("full")

    served, settings = ServedModel(intake=testing.intake()), ServerSettings(api_key=("k",))
    rows = [("/", page), ("/search", full)]
    operations = [
        Operation(path=path, method="GET", name=path, summary="", dialect=Dialect.OPENAI, handler=handler)
        for path, handler in rows
    ]
    app = create_app(Models([served]), Scripted(), settings, entrances=[lambda _: operations])
    with TestClient(app) as http:
        assert http.get("/").text == "ours"
        assert http.get("/search").status_code == 401
        assert http.get("/search", headers={"api-key": "k"}).status_code == 429


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("POST", "/v1/nope", 404),
        ("GET", "/v1/embeddings", 405),
        ("PUT", "/v1/embeddings", 405),
        ("POST", "/v1/models", 405),
        ("DELETE", "/health", 405),
    ],
)
def test_what_http_refuses_has_openai_shape(http: TestClient, method: str, path: str, status: int) -> None:
    response = http.request(method, path)
    assert response.status_code == status
    body = msgspec.json.decode(response.content, type=ErrorBody)
    assert body.error.type == "invalid_request_error"
    assert method in body.error.message
    if status == 405:
        assert response.headers["Allow"]


def test_head_answers_as_get_without_a_body(http: TestClient) -> None:
    for path in ("/health", "/v1/models", "/docs"):
        assert http.head(path).status_code == 200
    assert http.head("/v1/embeddings").status_code == 405
    assert http.head("/nope").status_code == 404


def test_request_ids(http: TestClient) -> None:
    assert http.get("/health", headers={"X-Request-Id": "my-id.1"}).headers["X-Request-Id"] == "my-id.1"
    first, second = (http.get("/nope").headers["X-Request-Id"] for _ in range(2))
    assert first != second
    for bad in ("two words", "x" * 200, "new\tline", "é".encode()):
        assert http.get("/health", headers={"X-Request-Id": bad}).headers["X-Request-Id"] != bad


def test_every_kind_that_a_request_can_meet_is_in_the_table() -> None:
    kinds = {kind.kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert kinds - set(TABLE) == {"config", "model", "missing_extra", "storage"}


def test_no_two_errors_have_one_kind() -> None:
    """By its kind an error becomes what it was, behind a socket."""
    leaves = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.AnydimError)]
    leaves.remove(errors.AnydimError)
    assert len({kind.kind for kind in leaves}) == len(leaves)

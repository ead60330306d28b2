"""GET /info: the fields that clients of text-embeddings-inference read, true on a real server too."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from anydim import testing
from anydim.api.app import create_app
from anydim.api.models import Models, ServedModel
from anydim.config import ServerSettings
from anydim.intake.intake import Intake
from anydim.version import VERSION
from tests.server.process import serving

# The required fields of `Info` in text-embeddings-inference's OpenAPI document.
REQUIRED = {"model_id", "model_dtype", "model_type", "max_concurrent_requests", "max_input_length", "max_batch_tokens"}
REQUIRED |= {"max_client_batch_size", "auto_truncate", "tokenization_workers", "version"}


def test_the_shape_is_that_of_tei(http: TestClient) -> None:
    info = http.get("/info").json()
    assert set(info) >= REQUIRED
    assert info["model_id"] == "anydim/fake"
    assert info["model_type"] == {"embedding": {"pooling": "last_token"}}
    assert info["max_input_length"] == 8192
    assert info["version"] == VERSION
    assert all(isinstance(info[name], int) for name in REQUIRED if name.startswith("max_"))
    assert info["auto_truncate"] is False
    assert (info["device"], info["model_dtype"]) == (None, "auto")  # an engine in this process says nothing of itself


@pytest.mark.parametrize(("place", "commit"), [("snapshots/0123abcd", "0123abcd"), ("models/mine", None)])
def test_the_commit_is_the_snapshot_s(tmp_path: Path, place: str, commit: str | None) -> None:
    folder = tmp_path / place
    folder.mkdir(parents=True)
    intake = Intake.of(testing.FakeModel().card(folder), testing.load_settings({}, {}).model)
    with (
        testing.engine() as engine,
        TestClient(create_app(Models([ServedModel(intake=intake)]), engine, ServerSettings())) as http,
    ):
        assert http.get("/info").json()["model_sha"] == commit


def test_a_real_server_tells_where_it_runs(minilm_folder: Path) -> None:
    with serving(minilm_folder, "--dtype", "float32", "--device", "cpu", "--max-batch-tokens", "1024") as server:
        server.line_with("Server running on")
        status, info = server.get("/info")
    assert status == 200
    assert info["device"] == "cpu"
    assert info["model_dtype"] == "float32"
    assert info["max_batch_tokens"] == 1024
    assert info["model_type"] == {"embedding": {"pooling": "mean"}}
    assert info["width"] == info["default_dim"] == 384

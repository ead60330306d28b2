"""OpenAI's batch files: each line gets what the server would answer, in the shapes that OpenAI's own client reads."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openai.types import CreateEmbeddingResponse
from starlette.testclient import TestClient

from anydim import Embedder
from anydim.api.app import create_app
from anydim.api.models import Models, ServedModel
from anydim.config import ServerSettings
from anydim.engine.handle import LocalEngine
from anydim.errors import ConfigError
from anydim.offline.batch import BatchWork, is_batch
from anydim.offline.job import Done, Job, run_job
from anydim.offline.records import OneText, Reading
from tests.offline.small_memory import LONGEST, small_memory
from tests.shelf import Shelf
from tests.texts import SENTENCES

READING = Reading(take=OneText("line"), format="text")


@pytest.fixture(scope="module")
def embedder(shelf: Shelf) -> Iterator[Embedder]:
    with Embedder(str(shelf.folder("qwen3")), dtype="float32", show_progress=False) as opened:
        yield opened


def line(custom_id: str, body: Any, **more: Any) -> str:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": body} | more)


GOOD = {
    "one": {"model": "qwen3", "input": SENTENCES[0]},
    "many": {"model": "QWEN3", "input": list(SENTENCES[:5]), "dimensions": 32, "user": "someone"},
    "packed": {"input": list(SENTENCES[2:4]), "encoding_format": "base64", "output_dim": [32, 64]},
    "bytes": {"input": SENTENCES[4], "output_dtype": "int8", "instruction": "Find it"},
}
BAD = {
    "dimension": {"input": "a", "dimensions": 33},
    "model": {"model": "text-embedding-3-small", "input": "a"},
    "type": {"input": 5},
    "nothing": {"input": []},
    "long": {"input": ["fine", "long " * 3000]},
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "batch.jsonl"
    lines = [line(name, body) for name, body in [*GOOD.items(), *BAD.items()]]
    lines += [line("url", {"input": "a"}, url="/v1/chat/completions"), line("get", {"input": "a"}, method="GET")]
    lines += ["nonsense", '{"custom_id": "half"}', ""]
    path.write_text("\n".join(lines) + "\n" + line("last", {"input": "the last"}) + "\n")
    return path


def run(embedder: Embedder, source: Path, stop: Any = lambda done: None, **more: Any) -> tuple[Path, Done]:
    job = Job(inputs=[str(source)], output=source.parent / "out.jsonl", reading=READING, **({"shard_texts": 5} | more))
    return job.output, run_job(BatchWork(embedder, job), job, stop)


def rows(path: Path) -> dict[str, Any]:
    return {row["custom_id"]: row for row in map(json.loads, path.read_text().splitlines())}


def test_each_line_gets_the_answer_of_the_server(embedder: Embedder, source: Path) -> None:
    output, done = run(embedder, source)
    answers = rows(output)
    assert list(answers) == [*GOOD, "last"]
    served = Models([ServedModel(intake=embedder.intake)])
    with TestClient(create_app(served, LocalEngine(embedder._engine), ServerSettings())) as http:
        for name, body in GOOD.items():
            row = answers[name]
            assert set(row) == {"id", "custom_id", "response", "error"}
            assert row["error"] is None
            assert row["response"]["status_code"] == 200
            found, wanted = row["response"]["body"], http.post("/v1/embeddings", json=body).json()
            if name != "packed":  # the client unpacks base64 before it checks
                CreateEmbeddingResponse.model_validate(found)
            assert found["usage"] == wanted["usage"]
            assert found["model"] == wanted["model"]
            for one, other in zip(found["data"], wanted["data"], strict=True):
                assert one.keys() == other.keys()
                np.testing.assert_allclose(numbers(one["embedding"]), numbers(other["embedding"]), atol=1)
                if name != "bytes":
                    np.testing.assert_allclose(numbers(one["embedding"]), numbers(other["embedding"]), atol=1e-6)
        refused = {name: http.post("/v1/embeddings", json=body) for name, body in BAD.items()}
    errors = rows(Path(f"{output}.errors.jsonl"))
    for name, answer in refused.items():
        assert errors[name]["response"]["status_code"] == answer.status_code
        assert errors[name]["response"]["body"] == answer.json()
        assert errors[name]["error"] is None
    assert (done.rows, done.failed) == (len(GOOD) + len(BAD) + 6, len(BAD) + 5)


def numbers(value: Any) -> np.ndarray:
    return np.frombuffer(base64.b64decode(value), "<f4") if isinstance(value, str) else np.array(value)


def test_lines_that_are_no_request_are_errors_of_the_line(embedder: Embedder, source: Path) -> None:
    output, _ = run(embedder, source)
    found = [json.loads(text) for text in Path(f"{output}.errors.jsonl").read_text().splitlines()]
    by_name = {row["custom_id"]: row for row in found}
    assert "/v1/embeddings" in by_name["url"]["response"]["body"]["error"]["message"]
    assert by_name["get"]["response"]["body"]["error"]["param"] == "method"
    broken = [row for row in found if row["custom_id"] is None]
    assert [row["error"]["code"] for row in broken] == ["invalid_json_line"] * 3
    assert f"{source}:{len(GOOD) + len(BAD) + 3}" in broken[0]["error"]["message"]
    assert all(row["response"] is None for row in broken)
    assert len({row["id"] for row in found}) == len(found)


def test_a_job_that_goes_on_writes_the_same_bytes(embedder: Embedder, source: Path) -> None:
    output, _ = run(embedder, source)
    files = [output, Path(f"{output}.errors.jsonl"), Path(f"{output}.manifest.json")]
    wanted = [path.read_bytes() for path in files]
    output.unlink()

    def stop(done: Done) -> None:
        if done.shards > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(embedder, source, stop)
    run(embedder, source, resume=True)
    assert [path.read_bytes() for path in files] == wanted


def test_what_does_not_fit_is_said_first(embedder: Embedder, tmp_path: Path) -> None:
    job = Job(inputs=["-"], output=tmp_path / "out.parquet", reading=READING)
    with pytest.raises(ConfigError, match=r"\.jsonl"):
        BatchWork(embedder, job)
    assert is_batch(line("a", {}))
    assert not is_batch('{"text": "a"}')
    assert not is_batch("plain text")


def test_the_command_knows_a_batch_file_by_its_first_line(shelf: Shelf, source: Path) -> None:
    output = source.parent / "answers.jsonl"
    words = [sys.executable, "-m", "anydim", "embed", str(source), "-o", str(output), "--device", "cpu"]
    words += ["--model", str(shelf.folder("qwen3")), "--dtype", "float32"]
    done = subprocess.run(
        [*words, "--served-model-name", "text-embedding-3-small"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "15 rows" in done.stdout
    assert "answers in" in done.stdout
    assert "9 rows have no answer" in done.stderr
    answers = rows(output)
    assert "model" in answers
    assert answers["model"]["response"]["body"]["model"] == "text-embedding-3-small"
    refused = subprocess.run([*words, "--output-dim", "32"], capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    assert "--output-dim does not go with a batch file" in refused.stderr


def test_a_request_with_a_text_that_the_memory_does_not_hold_is_refused_alone(shelf: Shelf, tmp_path: Path) -> None:
    source = tmp_path / "batch.jsonl"
    bodies = {"one": {"input": "fine"}, "two": {"input": ["fine", "word " * LONGEST]}, "three": {"input": "good"}}
    source.write_text("".join(line(name, body) + "\n" for name, body in bodies.items()))
    with small_memory(), Embedder(str(shelf.folder("qwen3")), dtype="float32", show_progress=False) as small:
        output, done = run(small, source)
    assert (done.failed, list(rows(output))) == (1, ["one", "three"])
    refused = rows(Path(f"{output}.errors.jsonl"))["two"]["response"]
    assert refused["status_code"] == 400
    assert f"up to {LONGEST}" in refused["body"]["error"]["message"]

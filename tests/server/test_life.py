"""A server's life: it starts from the command line alone, survives its engine, drains, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.server.process import ServerProcess, serving


def engine_of(server: ServerProcess) -> psutil.Process:
    server.line_with("Server running on")
    children = psutil.Process(server.process.pid).children()
    (engine,) = [child for child in children if "anydim.engine.worker" in child.cmdline()]
    return engine


def test_the_starter_model_is_served_from_a_bare_command(starter_folder: Path) -> None:
    with serving(environment={"ANYDIM_CACHE": str(starter_folder.parent)}) as server:
        status, answer = server.post("/v1/embeddings", {"input": ["hello", "你好"]})
        assert status == 200
        assert answer["model"] == "starter-multilingual-e5-small"
        assert [len(row["embedding"]) for row in answer["data"]] == [384, 384]
        assert server.line_with("Model loaded in")
        curl = server.line_with("Try: ").removeprefix("Try: ")
        pasted = subprocess.run(["bash", "-c", curl + " -s"], capture_output=True, check=True)
        assert len(json.loads(pasted.stdout)["data"][0]["embedding"]) == 256
        assert server.stop() == 0


def test_a_killed_engine_is_replaced_and_nobody_waits_for_it(minilm_folder: Path) -> None:
    with serving(minilm_folder) as server:
        assert server.get("/ready")[0] == 200
        first = engine_of(server)
        statuses: list[int] = []
        different = [f"{number} " + "word " * 200 for number in range(3000)]  # equal texts would share a forward
        crowd = threading.Thread(target=lambda: statuses.append(server.post("/v1/embeddings", {"input": different})[0]))
        crowd.start()
        server.until(lambda: first.cpu_percent(0.2) > 20)
        first.send_signal(signal.SIGKILL)
        crowd.join(30)
        assert statuses == [503]
        server.until(lambda: server.get("/ready")[0] == 200)
        assert engine_of(server).pid != first.pid
        assert server.post("/v1/embeddings", {"input": "again"})[0] == 200


def test_a_stuck_engine_is_replaced_and_its_waiters_are_answered(minilm_folder: Path) -> None:
    with serving(minilm_folder, "--watchdog-timeout", "1") as server:
        assert server.get("/health")[0] == 200
        engine = engine_of(server)
        engine.suspend()
        answers: list[tuple[int, Any]] = []
        waiting = threading.Thread(target=lambda: answers.append(server.post("/v1/embeddings", {"input": "a text"})))
        waiting.start()
        server.until(lambda: server.get("/health")[0] == 503)
        waiting.join(60)
        ((status, answer),) = answers
        assert status == 503
        assert "no progress" in answer["error"]["message"]
        server.until(lambda: server.get("/ready")[0] == 200)
        assert engine_of(server).pid != engine.pid
        assert server.post("/v1/embeddings", {"input": "a text"})[0] == 200


def test_sigterm_answers_what_is_under_way_and_exits_with_zero(minilm_folder: Path) -> None:
    with serving(minilm_folder) as server:
        engine = engine_of(server)
        statuses: list[int] = []
        texts = [f"{place} " + "word " * 200 for place in range(300)]  # seconds of work
        crowd = threading.Thread(target=lambda: statuses.append(server.post("/v1/embeddings", {"input": texts})[0]))
        crowd.start()
        server.until(lambda: engine.cpu_percent(0.1) > 20)
        assert server.stop(signal.SIGTERM) == 0
        crowd.join(30)
        assert statuses == [200]
        assert not engine.is_running()


def test_a_killed_server_takes_its_engine_along_and_its_port_is_free(minilm_folder: Path, tmp_path: Path) -> None:
    with serving(minilm_folder, environment={"TMPDIR": str(tmp_path)}) as server:
        port = server.address.rsplit(":", 1)[1]
        engine = engine_of(server)
        server.stop(signal.SIGKILL)
        server.until(lambda: not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE)
        assert list(tmp_path.glob("anydim-*")) == []
    with serving(minilm_folder, "--port", port) as again:
        assert again.get("/ready")[0] == 200


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["no/such/folder/anywhere"], "no/such/folder/anywhere"),
        (["--device", "cuda:99"], "cuda:99"),
        (["--prot", "1"], "--port"),
        (["--tp", "2"], "small enough for one GPU"),
    ],
)
def test_a_server_that_cannot_start_says_why_in_a_line(arguments: list[str], word: str, starter_folder: Path) -> None:
    environment = os.environ | {"ANYDIM_CACHE": str(starter_folder.parent)}
    ended = subprocess.run(
        [sys.executable, "-m", "anydim", "serve", "--port", "0", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )
    assert ended.returncode in (1, 2)
    assert word in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_sglang_command_line_serves_with_the_name_changed(minilm_folder: Path) -> None:
    line = ["--model-path", minilm_folder, "--is-embedding", "--mem-fraction-static", "0.9", "--disable-radix-cache"]
    with serving(*line, module="anydim.launch_server") as server:
        assert server.post("/v1/embeddings", {"input": "hello", "model": "model"})[0] == 200
        assert "--disable-radix-cache" in server.output


def test_python_files_in_a_model_folder_are_never_run(minilm_folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(minilm_folder, model)
    for name in ("msgspec", "torch", "numpy", "sitecustomize"):
        (model / f"{name}.py").write_text("raise SystemExit('code of the folder has run')")
    program = Path(sys.executable).parent / "anydim"
    if not program.exists():
        pytest.skip("the package is not installed, so there is no program to start inside the folder")
    with serving(".", program=program, cwd=model) as server:
        assert server.post("/v1/embeddings", {"input": "hello"})[0] == 200


def test_libraries_that_print_do_not_disturb_the_engine(minilm_folder: Path) -> None:
    with serving(minilm_folder, environment={"ONEDNN_VERBOSE": "1"}) as server:
        for turn in range(40):
            assert server.post("/v1/embeddings", {"input": "word " * turn})[0] == 200

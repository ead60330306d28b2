"""Faults around the engine, each on a real server process: the client's, the disk's, the machine's, the operator's."""

from __future__ import annotations

import contextlib
import gzip
import json
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from safetensors import safe_open

from tests.server.process import ServerProcess, serving
from tests.server.test_life import engine_of

LIMITS = ("--header-timeout", "1", "--body-timeout", "1", "--max-header-bytes", "2048", "--max-body-bytes", "100000")
HEAD = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\n"
GOOD = {"input": "hello"}


@pytest.fixture(scope="module")
def server(minilm_folder: Path) -> Iterator[ServerProcess]:
    """A server with low limits; every test leaves it serving."""
    with serving(minilm_folder, *LIMITS, "--request-log", "line", "--log-json") as server:
        server.line_with("Server running on")
        yield server


@pytest.fixture(autouse=True)
def goes_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test the shared server still answers."""
    yield
    if "server" in request.fixturenames:
        shared: ServerProcess = request.getfixturevalue("server")
        assert shared.post("/v1/embeddings", GOOD)[0] == 200


def connect(server: ServerProcess) -> contextlib.closing[socket.socket]:
    return contextlib.closing(socket.create_connection(("127.0.0.1", urlsplit(server.address).port or 0), 30))


def answer_to(server: ServerProcess, request: bytes) -> bytes:
    """Send these bytes and read until the server hangs up."""
    with connect(server) as line:
        with contextlib.suppress(OSError):
            line.sendall(request)
        return read_all(line)


def read_all(line: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while part := line.recv(65536):
            found += part
    return found


def posted(body: bytes, *headers: bytes) -> bytes:
    return (
        HEAD + b"".join(header + b"\r\n" for header in (*headers, b"Content-Length: %d" % len(body))) + b"\r\n" + body
    )


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (HEAD + b"X: " + b"a" * 3000 + b"\r\n\r\n", 431),
        (HEAD + b"X: " + b"a" * 3000, 431),
        (HEAD + b"X: y\r\n", 408),
        (HEAD + b"Content-Length: 50\r\n\r\n{", 408),
        (HEAD + b"Connection: close\r\nContent-Length: 100001\r\n\r\n", 413),
        (
            HEAD
            + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"ffff\r\n"
            + b"a" * 65535
            + b"\r\n" * 2,
            400,
        ),
        (b"hello?\r\n\r\n", 400),
    ],
    ids=["head", "endless header", "half a head", "half a body", "body", "broken chunk", "no HTTP"],
)
def test_a_bad_client_is_told_and_let_go(server: ServerProcess, request_bytes: bytes, status: int) -> None:
    answer = answer_to(server, request_bytes)
    assert answer.startswith(b"HTTP/1.1 %d" % status)
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]


def test_a_zip_bomb_is_never_unpacked(server: ServerProcess) -> None:
    bomb = gzip.compress(b'{"input": "' + b"a" * 50_000_000 + b'"}')
    assert len(bomb) < 100_000
    before = psutil.Process(server.process.pid).memory_info().rss
    for encoding in (b"gzip", b"deflate", b"br", b"gzip, gzip"):
        request = posted(bomb, b"Content-Encoding: " + encoding, b"Connection: close")
        assert answer_to(server, request).startswith(b"HTTP/1.1 415")
    assert psutil.Process(server.process.pid).memory_info().rss - before < 20_000_000


def test_silent_clients_are_let_go_while_others_are_served(server: ServerProcess) -> None:
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(server)) for _ in range(50)]
        assert server.post("/v1/embeddings", GOOD)[0] == 200
        assert [read_all(line) for line in silent] == [b""] * 50


def test_clients_that_vanish_leave_nothing_behind(server: ServerProcess) -> None:
    process = psutil.Process(server.process.pid)
    server.until(lambda: process.num_fds() < 60)
    before = process.num_fds()
    body = json.dumps({"input": ["word " * 50] * 50}).encode()
    for _ in range(20):
        with connect(server) as line:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # a reset, not a goodbye
            line.sendall(posted(body))
    server.until(lambda: process.num_fds() <= before + 2)


def test_the_log_is_json_and_holds_no_text(server: ServerProcess) -> None:
    server.post("/v1/embeddings", {"input": "a very private text"})
    server.until(lambda: any('"route": "/v1/embeddings"' in line for line in server.lines))
    for line in list(server.lines):
        assert json.loads(line)["level"] in ("info", "warning", "error")
    assert "private" not in server.output


def test_open_files_run_out_and_come_back(minilm_folder: Path) -> None:
    with serving(minilm_folder, limits={resource.RLIMIT_NOFILE: 120}) as server:
        engine = engine_of(server)
        with contextlib.ExitStack() as stack:
            lines = [stack.enter_context(connect(server)) for _ in range(200)]
            for line in lines:
                line.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            first = [line.recv(12) for line in lines]
            assert {b"HTTP/1.1 200", b"HTTP/1.1 503"} == set(first)
            assert first.count(b"HTTP/1.1 200") >= 50
            engine.kill()  # there are files left to start another and to reach it
            server.until(lambda: any("starting it again" in line for line in server.lines))
            for line in lines[:20]:
                line.close()
            server.until(lambda: server.get("/ready")[0] == 200)
        server.until(lambda: server.post("/v1/embeddings", GOOD)[0] == 200)


def test_a_taken_port_is_told_with_the_next_free_one(minilm_folder: Path) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as holder:
        port = holder.getsockname()[1]
        ended = anydim("serve", str(minilm_folder), "--port", str(port))
    assert ended.returncode == 2
    assert f"port {port} on 127.0.0.1 is taken" in ended.stderr
    assert "--port " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_full_disk_at_conversion_leaves_nothing_half_written(tmp_path: Path, starter_folder: Path) -> None:
    assert starter_folder.exists()  # its package is installed
    full = anydim("serve", "--cache", str(tmp_path / "cache"), "--port", "0", file_size=20_000_000)
    assert full.returncode == 1
    assert "cannot write the starter model" in full.stderr
    assert "ANYDIM_CACHE" in full.stderr
    assert "Traceback" not in full.stderr
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_dir() or path.stat().st_size] == []


def damage_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def cut_header(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])


def lose_shard(folder: Path) -> None:
    weights = folder / "model.safetensors"
    with safe_open(weights, framework="np") as file:
        places = dict.fromkeys(file.keys(), "model-00002-of-00002.safetensors")  # not a dict
    weights.unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def cut_tokenizer(folder: Path) -> None:
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_bytes(tokenizer.read_bytes()[:5000])


def cut_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"architectures": ["BertM')


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_weights, "cut off"),
        (cut_header, "cut off"),
        (lose_shard, "model-00002-of-00002.safetensors is missing"),
        (cut_tokenizer, "tokenizer.json"),
        (cut_config, "cut off"),
    ],
)
def test_a_half_downloaded_model_is_told_in_a_line(
    minilm_folder: Path, tmp_path: Path, damage: Callable[[Path], None], words: str
) -> None:
    folder = tmp_path / "half"
    shutil.copytree(minilm_folder, folder)
    damage(folder)
    ended = anydim("serve", str(folder), "--port", "0")
    assert ended.returncode == 1
    assert "half" in ended.stderr
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_sigterm_refuses_new_requests_while_old_ones_end(minilm_folder: Path) -> None:
    with serving(minilm_folder) as server:
        engine = engine_of(server)
        engine.suspend()
        statuses: list[int] = []
        waiting = threading.Thread(target=lambda: statuses.append(server.post("/v1/embeddings", GOOD)[0]))
        waiting.start()
        server.until(lambda: _in_flight(server) > 1)
        server.process.send_signal(signal.SIGTERM)
        server.until(lambda: server.get("/ready")[0] == 503)
        status, body = server.post("/v1/embeddings", GOOD)
        assert status == 503
        assert "stopping" in body["error"]["message"]
        engine.resume()
        waiting.join(30)
        assert statuses == [200]
        assert server.stop() == 0


def test_the_time_to_drain_is_a_limit_and_nobody_is_left_without_an_answer(minilm_folder: Path) -> None:
    with serving(minilm_folder, "--drain-timeout", "1") as server:
        engine = engine_of(server)
        engine.suspend()
        statuses: list[int] = []
        waiting = threading.Thread(target=lambda: statuses.append(server.post("/v1/embeddings", GOOD)[0]))
        waiting.start()
        server.until(lambda: _in_flight(server) > 1)
        assert server.stop(signal.SIGTERM) == 0
        waiting.join(30)
        assert statuses == [503]
        assert not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE


def test_sighup_reads_the_keys_again(minilm_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("search:old-key\n")
    with serving(minilm_folder, "--api-key-file", file, environment={"ANYDIM_API_KEY": "kept-key"}) as server:
        assert _status_with_key(server, "old-key") == 200
        assert_the_engine_is_private(engine_of(server), "kept-key")
        file.write_text("search:new-key\n")
        server.process.send_signal(signal.SIGHUP)
        server.line_with("2 keys are known now")
        assert _status_with_key(server, "old-key") == 401
        assert _status_with_key(server, "new-key") == 200
        file.write_text("")
        server.process.send_signal(signal.SIGHUP)
        server.line_with("the keys stay as they were")
        assert _status_with_key(server, "new-key") == _status_with_key(server, "kept-key") == 200
        for key in ("old-key", "new-key", "kept-key"):
            assert key not in server.output


def assert_the_engine_is_private(engine: psutil.Process, key: str) -> None:
    """It knows no key, and only its user may speak to it."""
    assert key not in str([engine.environ(), engine.cmdline()])
    paths = [Path(line.laddr) for line in engine.net_connections(kind="unix") if "anydim-" in str(line.laddr)]
    assert paths
    for place in set(paths) | {path.parent for path in paths}:
        assert place.stat().st_mode & 0o077 == 0, place


def _status_with_key(server: ServerProcess, key: str) -> int:
    return server.send(
        urllib.request.Request(server.address + "/v1/models", headers={"Authorization": f"Bearer {key}"})
    )[0]


def _in_flight(server: ServerProcess) -> float:
    with urllib.request.urlopen(server.address + "/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("anydim_http_requests_in_flight")))


def anydim(*words: str, file_size: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, perhaps unable to write files beyond a size."""

    def bound() -> None:
        if file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

    return subprocess.run(
        [sys.executable, "-m", "anydim", *words], capture_output=True, text=True, timeout=120, preexec_fn=bound
    )

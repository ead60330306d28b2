"""Ctrl-C in the middle of `anydim fit` and `anydim advise`: an exit code, a word, and nothing left behind."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from anydim.cli.main import make_program
from tests.quality.rows import hidden_structure


def stopped_at(words: list[str], sight: str, folder: Path) -> tuple[int, str]:
    """Run a command on a terminal, press Ctrl-C when its bar says ``sight``: its exit code and what it said."""
    ours, theirs = pty.openpty()
    temporary = folder / "temporary"
    temporary.mkdir()
    running = subprocess.Popen(
        [sys.executable, "-m", "anydim", *words],
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=folder,
        env={
            **os.environ,
            "TMPDIR": str(temporary),
            "TORCHINDUCTOR_CACHE_DIR": f"{folder}-torch",  # torch makes it beside temporary files, and keeps it
            "TERM": "xterm",
            "COLUMNS": "120",
        },
    )
    os.close(theirs)
    try:
        said = read_until(ours, sight)
        assert running.poll() is None, said
        running.send_signal(signal.SIGINT)
        said += read_until(ours, "Stopped")
        code = running.wait(timeout=60)
        assert running.stdout is not None
        assert running.stdout.read() == b""
    finally:
        running.kill()
        os.close(ours)
    assert list(temporary.iterdir()) == []
    temporary.rmdir()
    return code, said


def read_until(terminal: int, sight: str) -> str:
    said = b""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and sight not in plain(said):
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                said += os.read(terminal, 65536)
            except OSError:  # the other end is closed
                break
    assert sight in plain(said), plain(said)
    return plain(said)


def plain(said: bytes) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode(errors="replace"))


def test_a_fit(tmp_path: Path, minilm_folder: Path) -> None:
    # Learning alone has 300 steps, of which the first brings the signal.
    np.save(tmp_path / "v.npy", hidden_structure(20_000, 384, decay=0.99).numpy())
    words = ["fit", "--corpus", "v.npy", "--model", str(minilm_folder), "-o", "out/projection.safetensors"]
    code, said = stopped_at(words, "Fitting (learning)", tmp_path)
    assert code == 130, said
    assert "Traceback" not in said
    assert "Stopped: no result was written." in said
    assert [path.name for path in tmp_path.iterdir()] == ["v.npy"]


def test_an_advice(tmp_path: Path) -> None:
    # 2000 queries over 60,000 documents in 64 forms: half a minute of two cores, of which the bar shows the first part.
    np.save(tmp_path / "v.npy", hidden_structure(60_000, 512, decay=0.99).numpy())
    words = ["advise", "--corpus", "v.npy", "-o", "advice", "--no-fitted", "--sample", "2000"]
    code, said = stopped_at(words, "Measuring (", tmp_path)
    assert code == 130, said
    assert "Traceback" not in said
    assert "Stopped: no result was written." in said
    assert [path.name for path in tmp_path.iterdir()] == ["v.npy"]


@pytest.mark.parametrize("earlier", [False, True])
def test_an_advice_that_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: bool) -> None:
    np.save(tmp_path / "v.npy", hidden_structure(100, 64).numpy())
    output = tmp_path / "advice"
    words = ["advise", "--corpus", str(tmp_path / "v.npy"), "-o", str(output), "--dims", "32", "--no-time"]
    if earlier:
        assert CliRunner().invoke(make_program(), words).exit_code == 0
    before = {path.name: path.read_bytes() for path in output.glob("*")}

    def interrupted(found: object, title: str, count: int, file: Path) -> None:
        file.write_text("half a page")
        raise KeyboardInterrupt

    monkeypatch.setattr("anydim.cli.advise.draw_page", interrupted)
    done = CliRunner().invoke(make_program(), [*words, "--keep", "0.5"])
    assert done.exit_code == 130
    assert "Stopped: no result was written." in done.output
    assert {path.name: path.read_bytes() for path in output.glob("*")} == before
    assert {path.name for path in tmp_path.iterdir()} == {"v.npy", *(["advice"] if earlier else [])}

"""Compiled kernels are kept across starts, and no folder that cannot be written keeps a server from starting."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from anydim.engine.kernel_cache import place_kernels


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files of this test's own."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_kernels_lie_below_the_cache_and_stay_there(tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    assert place_kernels(tmp_path / "cache", environ) == tmp_path / "cache" / "kernels"
    (tmp_path / "cache" / "kernels" / "one").write_text("kept")
    assert place_kernels(tmp_path / "cache", {}) == tmp_path / "cache" / "kernels"
    assert [path.name for path in (tmp_path / "cache" / "kernels").iterdir()] == ["one"]
    assert environ == {"TRITON_CACHE_DIR": str(tmp_path / "cache" / "kernels")}


def test_a_folder_that_the_user_named_is_taken(tmp_path: Path) -> None:
    assert place_kernels(tmp_path / "cache", {"TRITON_CACHE_DIR": str(tmp_path / "own")}) == tmp_path / "own"
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written(tmp_path: Path, temporary: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    folder = place_kernels(tmp_path / "cache", {})
    assert folder == temporary / f"anydim-kernels-{os.getuid()}"
    assert folder.stat().st_mode & 0o077 == 0
    assert "compiled kernels cannot be kept in" in caplog.text
    assert place_kernels(tmp_path / "cache", {}) == folder  # and the next start finds what this one compiled


def test_a_stand_in_that_is_not_this_users_own_is_not_trusted(tmp_path: Path, temporary: Path) -> None:
    """Who could put a kernel there would run code here."""
    (tmp_path / "elsewhere").mkdir()
    (temporary / f"anydim-kernels-{os.getuid()}").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "cache").write_text("a file where the folder should be")
    folder = place_kernels(tmp_path / "cache", {})
    assert folder.parent == temporary
    assert not folder.is_symlink()


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache(tmp_path: Path, temporary: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o500)
    assert place_kernels(tmp_path / "cache", {}).parent == temporary


def test_a_full_disk(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    free = {True: 1 << 20, False: 1 << 40}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free["cache" in Path(path).parts]))
    assert place_kernels(tmp_path / "cache", {}).parent == temporary
    assert "1 MiB are free" in caplog.text


def test_nowhere_to_write_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    assert place_kernels(tmp_path / "file", {}) == tmp_path / "file" / "kernels"


def test_triton_reads_the_variable_when_it_compiles(tmp_path: Path) -> None:
    pytest.importorskip("triton")
    script = (
        "import os, sys, triton; from pathlib import Path; from anydim.engine.kernel_cache import place_kernels\n"
        "place_kernels(Path(sys.argv[1]), os.environ)\n"
        "from triton.runtime.cache import get_cache_manager\n"
        "print(get_cache_manager('ab12').put(b'code', 'kernel.bin'))"
    )
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TRITON")}
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=120, env=environ
    )
    assert ran.returncode == 0, ran.stderr
    assert Path(ran.stdout.strip()).is_relative_to(tmp_path / "kernels")
    assert Path(ran.stdout.strip()).read_bytes() == b"code"

"""The rules see the right files, with git and without, and each violation names its line."""

import shutil
import subprocess
from pathlib import Path

import pytest

from .sources import Source, listed, plant, read_texts, report

FILES = ("anydim/x.py", "tests/test_x.py", "docs/x.md", ".github/workflows/ci.yml", ".gitignore")
CACHES = (".venv/lib/y.py", "build/y.py", "anydim/__pycache__/y.py", ".mypy_cache/y.py", "anydim.egg-info/PKG-INFO")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """An unpacked archive with caches in it."""
    for name in FILES + CACHES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("ignored/\n", encoding="utf-8")
    return tmp_path


def test_the_package_and_these_rules_are_found(paths: list[str], package: list[Source]) -> None:
    assert "tests/policy/test_sources.py" in paths
    assert package


def test_an_archive_is_walked_without_its_caches(tree: Path) -> None:
    assert listed(tree) == sorted(FILES)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_a_work_tree_lists_tracked_and_new_files_but_not_ignored_ones(tree: Path) -> None:
    (tree / ".gitignore").write_text("\n".join([".venv", "build", "__pycache__", ".mypy_cache", "*.egg-info"]))
    subprocess.run(["git", "init", "-q", str(tree)], check=True)
    subprocess.run(["git", "-C", str(tree), "add", "anydim/x.py", "docs/x.md"], check=True)
    (tree / "docs/x.md").unlink()
    assert listed(tree) == sorted(set(FILES) - {"docs/x.md"})


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_an_archive_inside_another_repository_is_walked(tree: Path) -> None:
    outer = tree / "outer"
    inner = outer / "unpacked" / "anydim"
    inner.mkdir(parents=True)
    (inner / "x.py").write_text("")
    (outer / ".gitignore").write_text("unpacked")
    subprocess.run(["git", "init", "-q", str(outer)], check=True)
    assert listed(outer / "unpacked") == ["anydim/x.py"]


def test_binary_files_are_not_texts(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes("caf\u00e9".encode())
    (tmp_path / "b.bin").write_bytes(b"\0\1")
    (tmp_path / "c.bin").write_bytes(b"\xff\xfe")
    assert read_texts(tmp_path, ["a.md", "b.bin", "c.bin"]) == [Source("a.md", "caf\u00e9")]


def test_a_violation_names_its_line_and_the_report_names_all() -> None:
    (source,) = plant({"anydim/x.py": "x = 1\ny = 2\n"})
    found = [source.at(node, "bad") for node in source.tree.body]
    assert found == ["anydim/x.py:1: bad", "anydim/x.py:2: bad"]
    assert report(found, "Do better.").splitlines()[1:] == [*found, "2 violation(s). Do better."]

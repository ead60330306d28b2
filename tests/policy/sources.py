"""Finds the files that the rules read, and holds each as text with its syntax tree.

In a git work tree these are the tracked files and the new ones that git does not ignore; in an unpacked archive, a walk
that skips caches and build folders. Knows no rule.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = "anydim"
ERRORS_FILE: Final = f"{PACKAGE}/errors.py"
SKIPPED_FOLDERS: Final = frozenset({"venv", "env", "build", "dist", "node_modules", "__pycache__", "site-packages"})
KEPT_DOT_FOLDERS: Final = frozenset({".github"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Source:
    """One file: its path from the root with forward slashes, and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree of a Python file."""
        return ast.parse(self.text, filename=self.path)

    def at(self, node: ast.AST, words: str) -> str:
        """A violation at the line of `node`."""
        return f"{self.path}:{getattr(node, 'lineno', 1)}: {words}"


def plant(files: Mapping[str, str]) -> list[Source]:
    """Sources that exist only in a test: path -> text."""
    return [Source(path, text) for path, text in files.items()]


def listed(root: Path) -> list[str]:
    """Every file of the project below `root`, sorted, relative, with forward slashes."""
    names = _listed_by_git(root)
    return sorted(_walked(root) if names is None else names)


def _listed_by_git(root: Path) -> list[str] | None:
    # Only when `root` is itself the work tree: an archive unpacked inside another repository is not that repository's.
    try:
        top = _git(root, "rev-parse", "--show-toplevel").strip()
        if Path(top).resolve() != root.resolve():
            return None
        names = _git(root, "ls-files", "-z", "-co", "--exclude-standard").split("\0")
    except (OSError, subprocess.CalledProcessError):
        return None
    return [name for name in set(names) if name and (root / name).is_file()]


def _git(root: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(root), *words], capture_output=True, check=True, encoding="utf-8").stdout


def _walked(root: Path) -> Iterator[str]:
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if _is_ours(name)]
        for name in names:
            yield (Path(folder) / name).relative_to(root).as_posix()


def _is_ours(folder: str) -> bool:
    if folder in KEPT_DOT_FOLDERS:
        return True
    return not (folder.startswith(".") or folder.endswith(".egg-info") or folder in SKIPPED_FOLDERS)


def read_texts(root: Path, paths: Iterable[str]) -> list[Source]:
    """The files that hold UTF-8 text; binary files are left out."""
    contents = ((path, (root / path).read_bytes()) for path in paths)
    decoded = ((path, _decoded(content)) for path, content in contents)
    return [Source(path, text) for path, text in decoded if text is not None]


def _decoded(content: bytes) -> str | None:
    if b"\0" in content[:8192]:
        return None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def python_only(sources: Iterable[Source]) -> list[Source]:
    """The Python files among `sources`."""
    return [source for source in sources if source.path.endswith(".py")]


def package_only(sources: Iterable[Source]) -> list[Source]:
    """The files among `sources` that belong to the package."""
    return [source for source in sources if source.path.startswith(f"{PACKAGE}/")]


def statements(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """The statements of one scope, through `if`, `try`, `with` and loops, but not into functions or classes."""
    for node in body:
        yield node
        if isinstance(node, Function | ast.ClassDef):
            continue
        for block in ("body", "orelse", "handlers", "finalbody", "cases"):
            yield from statements(getattr(node, block, []))


def last_name(node: ast.AST) -> str:
    """The last word of a dotted name, of a call to it or of a subscript of it: `collections.deque(...)` -> deque."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=inner) | ast.Subscript(value=inner):
            return last_name(inner)
    return ""


def run_probe(script: str, root: Path, question: object) -> Any:
    """Runs a script of this folder in a fresh interpreter that sees `root` first; its last line is the JSON answer."""
    command = [sys.executable, "-P", str(Path(__file__).with_name(script)), json.dumps(question)]
    seen = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PYTHONPATH": seen, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, env=environment, cwd=root, encoding="utf-8", timeout=120)
    if done.returncode:
        return [f"{script} ended with {done.returncode}: {done.stderr.strip()[-2000:]}"]
    return json.loads(done.stdout.splitlines()[-1])


def report(found: Sequence[str], advice: str) -> str:
    """What a failing test prints: every violation, then what to do instead."""
    return "\n".join(["", *found, f"{len(found)} violation(s). {advice}"])

"""A corpus of questions with one right answer each: the docstrings of the packages that the test extra brings.

A docstring's first line is the question, the rest is the page that answers it. Not a script. It reads source files and
runs nothing of them; it knows no model.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PACKAGES: Final = ("networkx", "numpy", "scipy", "sklearn", "sympy", "torch")

_SHORTEST_QUESTION: Final = 15  # characters
_LONGEST_QUESTION: Final = 160
_SHORTEST_PAGE: Final = 200
_LONGEST_PAGE: Final = 600
_ALIKE: Final = 120  # characters in which no two pages may agree


@dataclass(frozen=True, slots=True)
class Page:
    """A question and its page, cut between words."""

    name: str
    question: str
    text: str


def pages(count: int) -> list[Page]:
    """The first ``count`` pages in the order of a hash of their names, so that all packages are mixed."""
    found: dict[str, Page] = {}
    for page in _all_pages():
        found.setdefault(page.question, page)
    unlike = {page.text[:_ALIKE]: page for page in found.values()}
    return sorted(unlike.values(), key=lambda page: hashlib.sha256(page.name.encode()).digest())[:count]


def versions() -> dict[str, str]:
    """Package -> version: what the corpus was made of."""
    names = {"sklearn": "scikit-learn"}
    return {package: importlib.metadata.version(names.get(package, package)) for package in PACKAGES}


def _all_pages() -> Iterator[Page]:
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None, f"the test extra brings {package}"
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*.py")):
            if "test" not in path.relative_to(root).as_posix():
                yield from _of_file(path, f"{package}/{path.relative_to(root).as_posix()}")


def _of_file(path: Path, name: str) -> Iterator[Page]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            question, _, rest = (ast.get_docstring(node) or "").partition("\n\n")
            question, text = " ".join(question.split()), _cut(rest.strip())
            fits = _SHORTEST_QUESTION <= len(question) <= _LONGEST_QUESTION and len(text) >= _SHORTEST_PAGE
            if fits and question not in text:
                yield Page(f"{name}:{getattr(node, 'lineno', 0)}", question, text)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_PAGE else text[:_LONGEST_PAGE].rsplit(None, 1)[0]

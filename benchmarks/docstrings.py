"""A corpus of questions with one right answer each: the docstrings of the packages that the test extra brings.

A docstring's first line is the question, the rest is the page that answers it. Not a script. It reads source files and
runs nothing of them; it knows no model.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PACKAGES: Final = ("networkx", "numpy", "scipy", "sklearn", "sympy", "torch")
TOOLS: Final = (
    *("click", "cohere", "fastapi", "fsspec", "httpx", "huggingface_hub", "hypothesis", "lancedb", "langchain_core"),
    *("openai", "opentelemetry", "pip", "psycopg", "pydantic", "pygments", "pytest", "qdrant_client", "rich"),
    *("schemathesis", "sentence_transformers", "starlette", "tokenizers", "transformers", "urllib3", "uvicorn"),
)

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


def pages(count: int, packages: Sequence[str] | None = None) -> list[Page]:
    """The first ``count`` pages in the order of a hash of their names, so that all packages are mixed."""
    return unlike(_all_pages(packages or PACKAGES))[:count]


def unlike(found: Iterable[Page]) -> list[Page]:
    """Pages of which no two ask the same or begin alike, in the order of a hash of their names."""
    asked: dict[str, Page] = {}
    for page in found:
        asked.setdefault(page.question, page)
    kept = {page.text[:_ALIKE]: page for page in asked.values()}
    return sorted(kept.values(), key=lambda page: hashlib.sha256(page.name.encode()).digest())


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Package -> version: what the corpus was made of."""
    names = importlib.metadata.packages_distributions()
    return {package: importlib.metadata.version(names[package][0]) for package in packages}


def page_of(name: str, question: str, text: str) -> Page | None:
    """A page, cut between words; None where question or text are of another length, or one holds the other."""
    question, text = " ".join(question.split()), _cut(text.strip())
    fits = _SHORTEST_QUESTION <= len(question) <= _LONGEST_QUESTION and len(text) >= _SHORTEST_PAGE
    return Page(name, question, text) if fits and question not in text else None


def _all_pages(packages: Sequence[str]) -> Iterator[Page]:
    for package in packages:
        spec = importlib.util.find_spec(package)
        assert spec is not None, f"the test extra brings {package}"
        roots = spec.submodule_search_locations
        root = Path(roots[0]) if roots else Path(str(spec.origin)).parent
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
            page = page_of(f"{name}:{getattr(node, 'lineno', 0)}", question, rest)
            if page is not None:
                yield page


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_PAGE else text[:_LONGEST_PAGE].rsplit(None, 1)[0]

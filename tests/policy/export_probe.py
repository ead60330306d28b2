"""Imports a package and prints, as JSON, what is wrong with the names it exports.

Knows nothing of the package but its name. It runs in its own process, because exported names may load torch.

Run: python -P tests/policy/export_probe.py '"anydim"'
"""

import importlib
import inspect
import json
import sys
from types import ModuleType


def probe(name: str) -> list[str]:
    """Every complaint about `__all__` of the package."""
    package = importlib.import_module(name)
    exported = getattr(package, "__all__", None)
    if exported is None:
        return [f"{name}: has no __all__"]
    return order(name, list(exported)) + [words for public in exported for words in one(package, public)]


def order(name: str, exported: list[str]) -> list[str]:
    """Complains unless the names are unique and sorted, by code point or as ruff does it (constants, classes, rest)."""
    if len(set(exported)) < len(exported):
        return [f"{name}.__all__: names a name twice"]
    as_ruff = sorted(exported, key=lambda word: (_rank(word), word))
    return [] if exported in (sorted(exported), as_ruff) else [f"{name}.__all__: is not sorted; should be {as_ruff}"]


def _rank(word: str) -> int:
    if word.isupper() and len(word) > 1:
        return 0
    return 1 if word[0].isupper() else 2


def one(package: ModuleType, public: str) -> list[str]:
    """Complains when one name cannot be imported or has no docstring; constants need none."""
    try:
        value = getattr(package, public)
    except Exception as error:
        return [f"{package.__name__}.{public}: cannot be imported: {type(error).__name__}: {error}"]
    documentable = inspect.isclass(value) or inspect.isroutine(value) or inspect.ismodule(value)
    return [f"{package.__name__}.{public}: has no docstring"] if documentable and not value.__doc__ else []


if __name__ == "__main__":
    answer = probe(json.loads(sys.argv[1]))
    print("\n" + json.dumps(answer))

"""Rules about who may import whom: the floors point only downward, and the upper two never load torch.

Knows the names of the floors and of the entrances, and nothing of what is inside them.
"""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Final

from .sources import PACKAGE, Source, run_probe

LEVEL: Final = MappingProxyType({"api": 1, "intake": 2, "engine": 3, "models": 4, "kernels": 4, "heads": 5})
GROUND: Final = frozenset({"setting", "sources", "types", "errors", "config", "logs", "progress", "version"})
DRAWS: Final = "engine"
"""The floor that may draw bars, for what only its process sees: the weights that come."""

BARE: Final = "__init__"
ENTRANCES: Final = frozenset(
    {"cli", "offline", "retrieval", "quality", "integrations", "deploy"}
    | {"embedder", "reranker", "resident", "testing", "launch_server", "__main__", BARE}
)
UNITS: Final = frozenset(LEVEL) | GROUND | ENTRANCES
LIGHT_FOLDERS: Final = ("api", "intake")
LIGHT_MODULES: Final = ("__init__.py", "cli/main.py")
HEAVY: Final = ("torch", "transformers", "pyarrow")


def imports_point_downward(package: Iterable[Source]) -> list[str]:
    """Every import of the package by itself that climbs a floor, enters an entrance, or stands on no known floor."""
    found = []
    for source in package:
        importer = unit_of(source.path)
        if importer not in UNITS:
            found.append(f"{source.path}:1: {importer} is no floor and no entrance; give it a place in {__name__}")
            continue
        for node, target in own_imports(source):
            why = objection(importer, target)
            if why:
                found.append(source.at(node, why))
    return found


def unit_of(path: str) -> str:
    """The floor, entrance or top-level module a file of the package belongs to: anydim/engine/queue.py -> engine."""
    return path.split("/")[1].removesuffix(".py")


def objection(importer: str, target: str) -> str:
    """Why `importer` may not import `target`; empty when it may."""
    if target == "progress" and importer in LEVEL and importer != DRAWS:
        return f"{importer} draws a bar; take a function to call, and let an entrance or the {DRAWS} draw"
    if importer in ENTRANCES or target in GROUND or importer == target:
        return ""
    if target == BARE:
        return f"{importer} imports bare {PACKAGE}; import the module that defines the name"
    if target in ENTRANCES:
        return f"{importer} imports the entrance {target}; nothing in the floors may"
    if importer in GROUND:
        return f"{importer}.py imports {target}; the ground modules import no floor"
    if target not in LEVEL:
        return f"{importer} imports {target}, which is no floor"
    if LEVEL[target] > LEVEL[importer] or (importer, target) == ("models", "kernels"):
        return ""
    return f"{importer} (floor {LEVEL[importer]}) imports {target} (floor {LEVEL[target]}); imports point only downward"


def own_imports(source: Source) -> Iterator[tuple[ast.AST, str]]:
    """Every import of the package by itself, at any depth and under TYPE_CHECKING too, with the unit it reaches."""
    for node in ast.walk(source.tree):
        for name in _modules_named(source, node):
            parts = name.split(".")
            if parts[0] == PACKAGE:
                yield node, parts[1] if len(parts) > 1 and parts[1] else BARE


def _modules_named(source: Source, node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [alias.name for alias in names]
        case ast.ImportFrom(names=names):
            module = _absolute(source.path, node)
            return [_member(alias.name) for alias in names] if module == PACKAGE else [module]
        case ast.Call(
            func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            return [name]
    return []


def _absolute(path: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    folders = path.split("/")[:-1]
    kept = folders[: len(folders) - node.level + 1]
    return ".".join([*kept, *filter(None, [node.module])])


def _member(name: str) -> str:
    # `from anydim import errors` reaches a module, `from anydim import Embedder` the entrance that exports it.
    return f"{PACKAGE}.{name}" if name in UNITS else PACKAGE


def light_modules(paths: Iterable[str]) -> list[str]:
    """The modules that must load without torch, as dotted names, from the paths of the package."""
    folders = tuple(f"{PACKAGE}/{folder}/" for folder in LIGHT_FOLDERS)
    files = {f"{PACKAGE}/{name}" for name in LIGHT_MODULES}
    kept = [path for path in paths if path.endswith(".py") and (path in files or path.startswith(folders))]
    return [_dotted(path) for path in sorted(kept) if not path.endswith("__main__.py")]


def _dotted(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def loads_nothing_heavy(root: Path, modules: Iterable[str]) -> list[str]:
    """Imports the modules in a fresh process; each heavy library they load, with the line that asked for it."""
    found: list[str] = run_probe(
        "import_probe.py", root, {"modules": list(modules), "heavy": HEAVY, "package": PACKAGE}
    )
    return found

"""Rules about the shape of the code: length, empty names, lonely base classes, state that hides in a module.

Knows syntax only; it runs nothing.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Final

from .sources import ERRORS_FILE, PACKAGE, Function, Source, last_name, statements

LONGEST: Final = 400
EMPTY_WORDS: Final = frozenset({"util", "utils", "helper", "helpers", "common", "misc", "manager", "managers"})
WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
MUTABLE_NODES: Final = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MUTABLE_CALLS: Final = frozenset(
    {"list", "dict", "set", "bytearray", "fromkeys", "defaultdict", "deque", "OrderedDict", "Counter", "ChainMap"}
    | {"WeakKeyDictionary", "WeakValueDictionary", "WeakSet"}
)
CACHES: Final = frozenset({"cache", "lru_cache"})


def not_too_long(sources: Iterable[Source]) -> list[str]:
    """Files of more than 400 lines."""
    lengths = ((source.path, len(source.text.splitlines())) for source in sources)
    return [f"{path}:{LONGEST + 1}: has {lines} lines" for path, lines in lengths if lines > LONGEST]


def paths_say_something(paths: Iterable[str]) -> list[str]:
    """Files and folders whose name ends in an empty word such as utils."""
    places = {parent for path in paths for parent in [PurePosixPath(path), *PurePosixPath(path).parents]}
    return [f"{place}: says nothing of what is inside" for place in sorted(places) if is_empty_name(place.stem)]


def classes_say_something(sources: Iterable[Source]) -> list[str]:
    """Classes whose name ends in an empty word such as Manager."""
    return [
        source.at(node, f"class {node.name} says nothing of what it does")
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef) and is_empty_name(node.name)
    ]


def is_empty_name(name: str) -> bool:
    """Whether the last word of a snake_case or CamelCase name is an empty one."""
    words = WORD.findall(name)
    return bool(words) and words[-1].lower() in EMPTY_WORDS


def no_lonely_base(package: Iterable[Source]) -> list[str]:
    """Classes of the package from which exactly one class of the package inherits; the exception tree is exempt."""
    sources = list(package)
    children: defaultdict[str, list[str]] = defaultdict(list)
    for source in sources:
        for child, parent in _inheritance(source):
            children[parent].append(child)
    return [
        source.at(node, f"class {node.name} has a single child, {children[node.name][0]}")
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef) and len(children[node.name]) == 1 and source.path != ERRORS_FILE
    ]


def _inheritance(source: Source) -> Iterator[tuple[str, str]]:
    outside = _outside_names(source)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef):
            yield from ((node.name, last_name(base)) for base in node.bases if _root_name(base) not in outside)


def _outside_names(source: Source) -> set[str]:
    # `class Router(starlette.Router)` is no child of a Router of ours.
    names: set[str] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {alias.asname or alias.name for alias in node.names if not _is_own(node.module)}
    return names - {PACKAGE}


def _is_own(module: str | None) -> bool:
    return (module or "").split(".")[0] == PACKAGE


def _root_name(node: ast.AST) -> str:
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=inner) | ast.Subscript(value=inner) | ast.Call(func=inner):
            return _root_name(inner)
    return ""


def no_module_state(package: Iterable[Source]) -> list[str]:
    """Mutable values bound at module level, `global` statements, and caches keyed by arguments."""
    found = []
    for source in package:
        found += [source.at(node, f"{name} is mutable") for node, name in _mutable_bindings(source.tree)]
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Global):
                found.append(source.at(node, f"global {', '.join(node.names)}"))
            elif isinstance(node, Function) and _is_keyed_cache(node):
                found.append(source.at(node, f"{node.name} keeps a cache keyed by its arguments"))
    return found


def _mutable_bindings(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    for node in statements(tree.body):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign) and _is_mutable(node.value):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            name = ast.unparse(targets[0])
            if name != "__all__":
                yield node, name


def _is_mutable(value: ast.AST | None) -> bool:
    if isinstance(value, ast.Call):
        return last_name(value.func) in MUTABLE_CALLS
    return isinstance(value, MUTABLE_NODES)


def _is_keyed_cache(node: Function) -> bool:
    arguments = node.args
    takes_any = any([arguments.posonlyargs, arguments.args, arguments.kwonlyargs, arguments.vararg, arguments.kwarg])
    return takes_any and any(last_name(decorator) in CACHES for decorator in node.decorator_list)

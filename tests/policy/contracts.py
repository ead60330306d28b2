"""Rules about settings and errors: defaults in frozen dataclasses, one exception tree, no assert on user data.

Knows where settings and errors live, not which there are.
"""

import ast
import builtins
import re
from collections.abc import Iterable
from types import MappingProxyType
from typing import Final

from .floors import unit_of
from .sources import ERRORS_FILE, PACKAGE, Source, last_name

CONFIG_FILE: Final = f"{PACKAGE}/config.py"
SETTINGS_TRAITS: Final = ("frozen", "slots", "kw_only")
FIELDS_WITHOUT_DATACLASS: Final = frozenset({"Enum", "IntEnum", "StrEnum", "Flag", "Protocol"})
EXCEPTIONS: Final = frozenset(
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException) and not issubclass(value, Warning)
)
USER_FLOORS: Final = frozenset({"api", "intake"})
# An engine may raise ValueError on a broken promise of ours; what reaches it from a user was checked above it.
BARE_EXCEPTIONS: Final = frozenset({"BaseException", "Exception", "RuntimeError"})
KINDLESS: Final = BARE_EXCEPTIONS | {"ValueError", "TypeError", "KeyError", "AssertionError"}
FORBIDDEN_RAISES: Final = MappingProxyType({"api": KINDLESS, "intake": KINDLESS, "engine": BARE_EXCEPTIONS})


def settings_are_frozen(package: Iterable[Source]) -> list[str]:
    """Classes with defaults in config.py that are not frozen, slotted, keyword-only dataclasses."""
    return [
        source.at(node, f"class {node.name} lacks @dataclass({', '.join(f'{trait}=True' for trait in missing)})")
        for source in package
        if source.path == CONFIG_FILE
        for node in _classes(source)
        if (missing := _missing_traits(node))
    ]


def _missing_traits(node: ast.ClassDef) -> list[str]:
    for decorator in node.decorator_list:
        if last_name(decorator) == "dataclass":
            given = decorator.keywords if isinstance(decorator, ast.Call) else []
            true = {word.arg for word in given if isinstance(word.value, ast.Constant) and word.value.value is True}
            return [trait for trait in SETTINGS_TRAITS if trait not in true]
    has_default = any(
        isinstance(field, ast.AnnAssign) and field.value and not _is_class_constant(field) for field in node.body
    )
    is_other = any(last_name(base) in FIELDS_WITHOUT_DATACLASS for base in node.bases)
    return list(SETTINGS_TRAITS) if has_default and not is_other else []


def _is_class_constant(field: ast.AnnAssign) -> bool:
    return last_name(field.annotation) in {"ClassVar", "Final"}


def exceptions_live_in_one_file(package: Iterable[Source]) -> list[str]:
    """Exception classes that are defined outside errors.py."""
    sources = list(package)
    ours = exception_names(sources)
    return [
        source.at(node, f"exception {node.name} is not in {ERRORS_FILE}")
        for source in sources
        if source.path != ERRORS_FILE
        for node in _classes(source)
        if node.name in ours
    ]


def exception_names(sources: Iterable[Source]) -> set[str]:
    """Names of the exception classes: built on a built-in exception, on one of ours, or on some library's ...Error."""
    bases = {node.name: [last_name(base) for base in node.bases] for source in sources for node in _classes(source)}
    found: set[str] = set()
    while True:
        known = EXCEPTIONS | found
        more = {name for name, parents in bases.items() if any(_is_exception(p, known, bases) for p in parents)}
        if more == found:
            return found
        found = more


def _is_exception(parent: str, known: Iterable[str], bases: dict[str, list[str]]) -> bool:
    return parent in known or (parent not in bases and parent.endswith(("Error", "Exception")))


def exceptions_form_one_tree(package: Iterable[Source]) -> list[str]:
    """In errors.py: second roots, classes without a kind, and classes missing from the tree in the docstring."""
    found = []
    for source in package:
        if source.path == ERRORS_FILE:
            names = exception_names([source])
            classes = {node.name: node for node in _classes(source) if node.name in names}
            found += _second_roots(source, classes) + _kindless(source, classes) + _undrawn(source, classes)
    return found


def _second_roots(source: Source, classes: dict[str, ast.ClassDef]) -> list[str]:
    roots = [node for node in classes.values() if not _parents(node, classes)]
    return [source.at(node, f"{node.name} starts a second tree beside {roots[0].name}") for node in roots[1:]]


def _kindless(source: Source, classes: dict[str, ast.ClassDef]) -> list[str]:
    # The root stands for no kind of its own, so inheriting from it alone is not enough.
    return [
        source.at(node, f"{node.name} has no kind")
        for node in classes.values()
        if _parents(node, classes) and not _has_kind(node, classes)
    ]


def _has_kind(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> bool:
    parents = _parents(node, classes)
    return bool(parents) and (_sets_kind(node) or any(_has_kind(parent, classes) for parent in parents))


def _sets_kind(node: ast.ClassDef) -> bool:
    in_header = any(word.arg == "kind" for word in node.keywords)
    return in_header or any(_binds_kind(field) for field in node.body)


def _binds_kind(field: ast.stmt) -> bool:
    match field:
        case ast.AnnAssign(target=ast.Name(id="kind"), value=value):
            return value is not None
        case ast.Assign(targets=targets):
            return any(isinstance(target, ast.Name) and target.id == "kind" for target in targets)
    return False


def _parents(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> list[ast.ClassDef]:
    return [classes[last_name(base)] for base in node.bases if last_name(base) in classes]


def _undrawn(source: Source, classes: dict[str, ast.ClassDef]) -> list[str]:
    drawing = set(re.findall(r"\w+", ast.get_docstring(source.tree) or ""))
    return [
        source.at(node, f"{node.name} is not drawn in the docstring of the file")
        for node in classes.values()
        if node.name not in drawing
    ]


def raises_are_kind(package: Iterable[Source]) -> list[str]:
    """Built-in exceptions raised where a user's mistake must become an error with a kind."""
    return [
        source.at(node, f"{unit_of(source.path)} raises {name}")
        for source in package
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Raise) and node.exc is not None
        if (name := last_name(node.exc)) in FORBIDDEN_RAISES.get(unit_of(source.path), ())
    ]


def no_assert_on_user_data(package: Iterable[Source]) -> list[str]:
    """Assert statements in the floors that read what a user sent."""
    return [
        source.at(node, f"assert in {unit_of(source.path)}")
        for source in package
        if unit_of(source.path) in USER_FLOORS
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Assert)
    ]


def _classes(source: Source) -> list[ast.ClassDef]:
    return [node for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)]

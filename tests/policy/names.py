"""Rules about what the package offers: exported names, docstrings, annotations.

Knows syntax, and asks a fresh process about the exported names.
"""

import ast
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from .sources import PACKAGE, Function, Source, last_name, run_probe, statements

WITHOUT_OWN_DOCSTRING: Final = frozenset({"overload", "setter", "deleter"})


def exports_are_sound(root: Path) -> list[str]:
    """Exported names that are out of order, cannot be imported, or have no docstring."""
    found: list[str] = run_probe("export_probe.py", root, PACKAGE)
    return found


def public_is_documented(package: Iterable[Source]) -> list[str]:
    """Modules, public classes and public functions without a docstring; dunders and nested functions are exempt."""
    found = []
    for source in package:
        if not ast.get_docstring(source.tree):
            found.append(f"{source.path}:1: the module has no docstring")
        missing = (pair for pair in public_definitions(source.tree.body) if not ast.get_docstring(pair[1]))
        found += [source.at(node, f"{name} has no docstring") for name, node in missing]
    return found


def public_definitions(body: Sequence[ast.AST], prefix: str = "") -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Public classes, functions and methods below `body`, with dotted names."""
    for node in statements(body):
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        if not any(last_name(decorator) in WITHOUT_OWN_DOCSTRING for decorator in node.decorator_list):
            yield prefix + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from public_definitions(node.body, f"{prefix}{node.name}.")


def functions_are_annotated(package: Iterable[Source]) -> list[str]:
    """Functions, private and nested ones too, with an argument or a return that has no type."""
    return [
        source.at(node, f"{node.name} lacks a type for {', '.join(bare)}")
        for source in package
        for node, is_method in _functions(source.tree)
        if (bare := unannotated(node, is_method))
    ]


def _functions(node: ast.AST) -> Iterator[tuple[Function, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function) and not _is_kernel(child):
            yield child, isinstance(node, ast.ClassDef)
        yield from _functions(child)


def _is_kernel(node: Function) -> bool:
    # A Triton kernel is compiled, not called; its annotations are instructions to the compiler.
    return any(last_name(decorator) == "jit" for decorator in node.decorator_list)


def unannotated(node: Function, is_method: bool) -> list[str]:
    """Names of the arguments without a type, and `return` where that is missing."""
    arguments = node.args
    positional = arguments.posonlyargs + arguments.args
    is_static = any(last_name(decorator) == "staticmethod" for decorator in node.decorator_list)
    named = positional[1 if is_method and not is_static else 0 :] + arguments.kwonlyargs
    every = [*named, *filter(None, [arguments.vararg, arguments.kwarg])]
    return [argument.arg for argument in every if argument.annotation is None] + ["return"] * (node.returns is None)

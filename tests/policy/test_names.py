"""Exported names, docstrings and annotations: on the real package and on planted ones."""

from pathlib import Path

import pytest

from .names import exports_are_sound, functions_are_annotated, public_is_documented
from .sources import ROOT, Source, plant, report


def test_exported_names_are_sound() -> None:
    found = exports_are_sound(ROOT)
    assert not found, report(found, "Keep __all__ sorted, each name importable and documented.")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1", "has no __all__"),
        ("__all__ = ['b', 'a']\na = b = 1", "is not sorted"),
        ("__all__ = ['a', 'a']\na = 1", "names a name twice"),
        ("__all__ = ['a']", "a: cannot be imported: AttributeError"),
        (
            "__all__ = ['a']\ndef __getattr__(name):\n    import nobody_has_it",
            "cannot be imported: ModuleNotFoundError",
        ),
        ("__all__ = ['f']\ndef f(): ...", "f: has no docstring"),
        ("__all__ = ['A']\nclass A: ...", "A: has no docstring"),
        ("raise OSError('broken')", "OSError: broken"),
    ],
)
def test_an_unsound_export_is_found(tmp_path: Path, text: str, words: str) -> None:
    found = exports_of(tmp_path, text)
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize("order", ["['A', 'LIMIT', '__version__', 'f']", "['LIMIT', 'A', '__version__', 'f']"])
def test_sound_exports_are_fine(tmp_path: Path, order: str) -> None:
    names = "LIMIT = 1\n__version__ = '1'\nclass A:\n    'An a.'\ndef f():\n    'An f.'\n"
    assert exports_of(tmp_path, f"__all__ = {order}\n{names}") == []


def exports_of(root: Path, text: str) -> list[str]:
    (root / "anydim").mkdir()
    (root / "anydim" / "__init__.py").write_text(text, encoding="utf-8")
    return exports_are_sound(root)


def test_public_names_have_docstrings(package: list[Source]) -> None:
    found = public_is_documented(package)
    assert not found, report(found, "Say what it does: shapes, units, errors and the paper or spec it follows.")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("x = 1", "the module"),
        ("'M.'\ndef f(): ...", "f"),
        ("'M.'\nif x:\n    async def f(): ...", "f"),
        ("'M.'\nclass A:\n    x = 1", "A"),
        ("'M.'\nclass A:\n    'A.'\n    def f(self): ...", "A.f"),
        ("'M.'\nclass A:\n    'A.'\n    class B:\n        'B.'\n        @property\n        def f(self): ...", "A.B.f"),
    ],
)
def test_a_missing_docstring_is_found(text: str, name: str) -> None:
    found = public_is_documented(plant({"anydim/x.py": text}))
    assert len(found) == 1
    assert f"{name} has no docstring" in found[0]


@pytest.mark.parametrize(
    "text",
    [
        "def _f(): ...",
        "class _A:\n    def f(self): ...",
        "def f():\n    'F.'\n    def inner(): ...",
        "class A:\n    'A.'\n    def __init__(self): ...\n    @x.setter\n    def x(self, value): ...",
        "@overload\ndef f(a): ...\ndef f(a):\n    'F.'",
    ],
)
def test_private_nested_and_repeated_names_need_no_docstring(text: str) -> None:
    assert public_is_documented(plant({"anydim/x.py": f"'M.'\n{text}"})) == []


def test_functions_are_annotated(package: list[Source]) -> None:
    found = functions_are_annotated(package)
    assert not found, report(found, "Give every argument and every return a type, private functions too.")


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("def f(): ...", "return"),
        ("def f(a) -> None: ...", "a"),
        ("def f(a: int, /, b, *c, d, **e): ...", "b, d, c, e, return"),
        ("class A:\n    def f(self, a) -> None: ...", "a"),
        ("class A:\n    @staticmethod\n    def f(a) -> None: ...", "a"),
        ("class A:\n    def __init__(self): ...", "return"),
        ("def _f() -> None:\n    def inner() -> None:\n        async def innermost(): ...", "return"),
    ],
)
def test_a_missing_type_is_found(text: str, bare: str) -> None:
    found = functions_are_annotated(plant({"anydim/x.py": text}))
    assert len(found) == 1
    assert found[0].endswith(f"lacks a type for {bare}")


@pytest.mark.parametrize(
    "text",
    [
        "def f(a: int, *b: int, **c: int) -> None: ...",
        "class A:\n    def f(self, a: int) -> None: ...\n    @classmethod\n    def g(cls) -> None: ...",
        "@triton.jit\ndef kernel(x_ptr, BLOCK: tl.constexpr): ...",
    ],
)
def test_annotated_functions_and_kernels_are_fine(text: str) -> None:
    assert functions_are_annotated(plant({"anydim/x.py": text})) == []

"""Settings, the exception tree and asserts: on the real package and on planted ones."""

import pytest

from .contracts import (
    exceptions_form_one_tree,
    exceptions_live_in_one_file,
    no_assert_on_user_data,
    raises_are_kind,
    settings_are_frozen,
)
from .sources import Source, plant, report

TREE = '''"""The errors.

AnydimError
  UserError
    TooLong
  Busy
"""
class AnydimError(Exception):
    kind: ClassVar[str]
class UserError(AnydimError):
    kind = "user"
class TooLong(UserError): ...
class Busy(AnydimError):
    kind: ClassVar[str] = "busy"
'''


def test_settings_are_frozen(package: list[Source]) -> None:
    found = settings_are_frozen(package)
    assert not found, report(found, "Settings are read by many and changed by none: frozen, slotted, keyword-only.")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "@dataclass\n",
        "@dataclasses.dataclass(frozen=True, slots=True)\n",
        "@dataclass(frozen=True, slots=False, kw_only=True)\n",
    ],
)
def test_loose_settings_are_found(header: str) -> None:
    assert len(settings_are_frozen(plant({"anydim/config.py": f"{header}class Limits:\n    tokens: int = 1"}))) == 1


def test_frozen_settings_enums_and_other_files_are_fine() -> None:
    frozen = "@dataclass(frozen=True, slots=True, kw_only=True)\nclass Limits:\n    tokens: int = 1\n"
    choices = "class Dtype(StrEnum):\n    FLOAT = 'float'\n"
    planted = plant({"anydim/config.py": frozen + choices, "anydim/types.py": "@dataclass\nclass Row:\n    n: int = 0"})
    assert settings_are_frozen(planted) == []


def test_exceptions_live_in_one_tree(package: list[Source]) -> None:
    found = exceptions_live_in_one_file(package) + exceptions_form_one_tree(package)
    assert not found, report(found, "Put it in errors.py below the root, with a kind, and draw it in the docstring.")


@pytest.mark.parametrize(
    "text",
    [
        "class Lost(Exception): ...",
        "class Lost(Busy): ...",
        "class Lost(starlette.HTTPException): ...",
        "def f():\n    class Lost(KeyError): ...",
    ],
)
def test_an_exception_outside_the_file_is_found(text: str) -> None:
    found = exceptions_live_in_one_file(plant({"anydim/errors.py": TREE, "anydim/engine/x.py": text}))
    assert len(found) == 1
    assert "exception Lost" in found[0]


def test_a_good_tree_and_warnings_are_fine() -> None:
    planted = plant({"anydim/errors.py": TREE, "anydim/x.py": "class Ignored(UserWarning): ...\nclass Error: ..."})
    assert exceptions_live_in_one_file(planted) + exceptions_form_one_tree(planted) == []


@pytest.mark.parametrize(
    ("added", "words"),
    [
        ("class Busy2(AnydimError): ...", "Busy2 has no kind"),
        ("class Busy2(AnydimError):\n    kind: str", "Busy2 has no kind"),
        ("class Busy2(ValueError):\n    kind = 'x'", "Busy2 starts a second tree beside AnydimError"),
    ],
)
def test_a_crooked_branch_is_found(added: str, words: str) -> None:
    drawn = TREE.replace("  Busy\n", "  Busy\n  Busy2\n")
    found = exceptions_form_one_tree(plant({"anydim/errors.py": drawn + added}))
    assert len(found) == 1
    assert found[0].endswith(words)


def test_an_undrawn_class_is_found() -> None:
    found = exceptions_form_one_tree(plant({"anydim/errors.py": TREE.replace("    TooLong\n", "")}))
    assert len(found) == 1
    assert "TooLong is not drawn" in found[0]


def test_user_mistakes_raise_errors_with_a_kind(package: list[Source]) -> None:
    found = raises_are_kind(package)
    assert not found, report(found, "Raise a class of errors.py; its kind becomes the status in every dialect.")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("api/x.py", "ValueError('x')"),
        ("intake/x.py", "KeyError"),
        ("intake/x.py", "AssertionError()"),
        ("api/dialects/x.py", "Exception('x') from None"),
        ("engine/x.py", "RuntimeError('x')"),
    ],
)
def test_a_built_in_raise_is_found(path: str, name: str) -> None:
    assert len(raises_are_kind(plant({f"anydim/{path}": f"def f():\n    raise {name}"}))) == 1


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("api/x.py", "TooLong('x')"),
        ("api/x.py", ""),
        ("engine/x.py", "ValueError('x')"),
        ("heads/x.py", "RuntimeError('x')"),
        ("intake/x.py", "errors.UserError"),
    ],
)
def test_other_raises_are_fine(path: str, what: str) -> None:
    assert raises_are_kind(plant({f"anydim/{path}": f"def f():\n    raise {what}"})) == []


def test_no_assert_meets_user_data(package: list[Source]) -> None:
    found = no_assert_on_user_data(package)
    assert not found, report(found, "Raise an error of errors.py; assert is for our own promises, below intake/.")


def test_an_assert_on_user_data_is_found() -> None:
    text = "def f(x):\n    assert x"
    planted = plant({f"anydim/{unit}/x.py": text for unit in ("api", "intake", "engine")})
    assert no_assert_on_user_data(planted) == [
        "anydim/api/x.py:2: assert in api",
        "anydim/intake/x.py:2: assert in intake",
    ]

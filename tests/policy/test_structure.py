"""Length, names, base classes and module state: on the real tree and on planted ones."""

import pytest

from .sources import Source, plant, report
from .structure import classes_say_something, no_lonely_base, no_module_state, not_too_long, paths_say_something


def test_no_file_is_too_long(python: list[Source]) -> None:
    found = not_too_long(python)
    assert not found, report(found, "Split the file by subject.")


def test_a_long_file_is_found() -> None:
    planted = plant({"anydim/long.py": "x = 1\n" * 401, "anydim/full.py": "x = 1\n" * 400})
    assert not_too_long(planted) == ["anydim/long.py:401: has 401 lines"]


def test_names_say_something(paths: list[str], python: list[Source]) -> None:
    found = paths_say_something(paths) + classes_say_something(python)
    assert not found, report(found, "Name it after what it does, or move its parts to where they are used.")


@pytest.mark.parametrize(
    "path",
    [
        "anydim/utils.py",
        "anydim/helpers/a.py",
        "tests/text_utils.py",
        "anydim/Common/a.py",
        "benchmarks/misc.py",
        "anydim/engine/cacheManager.py",
        "anydim/_helpers.py",
    ],
)
def test_an_empty_path_is_found(path: str) -> None:
    assert len(paths_say_something([path, "anydim/engine/queue.py"])) == 1


@pytest.mark.parametrize("name", ["Manager", "CacheManager", "GPUHelpers", "IOUtils", "_Misc", "cache_manager"])
def test_an_empty_class_name_is_found(name: str) -> None:
    assert len(classes_say_something(plant({"anydim/x.py": f"class {name}: ...\nclass Queue: ..."}))) == 1


def test_names_that_contain_a_word_are_fine() -> None:
    assert paths_say_something(["anydim/engine/common_prefix.py", "tests/test_manageress.py"]) == []
    assert classes_say_something(plant({"a.py": "class CommonPrefix: ..."})) == []


def test_no_base_class_has_a_single_child(package: list[Source]) -> None:
    found = no_lonely_base(package)
    assert not found, report(found, "Fold the base class into its child until there is a second one.")


@pytest.mark.parametrize(
    "base",
    [
        "class Base: ...",
        "class Base(Protocol): ...",
        "class Base(ABC): ...",
        "class Base(Generic[T]): ...",
        "class Outer:\n    class Base: ...",
    ],
)
def test_a_lonely_base_is_found(base: str) -> None:
    planted = plant({"anydim/a.py": base, "anydim/b.py": "from .a import Base\nclass Child(Base): ..."})
    found = no_lonely_base(planted)
    assert len(found) == 1
    assert "Base has a single child, Child" in found[0]


@pytest.mark.parametrize("child", ["class Child(a.Base): ...", "class Child(Base[int]): ..."])
def test_a_lonely_base_is_found_through_any_spelling(child: str) -> None:
    assert len(no_lonely_base(plant({"anydim/a.py": "class Base: ...", "anydim/b.py": child}))) == 1


def test_two_children_outside_bases_and_the_exception_tree_are_fine() -> None:
    planted = plant(
        {
            "anydim/a.py": "class Base: ...\nclass One(Base): ...\nclass Two(Base): ...",
            "anydim/b.py": "import starlette\nclass Router(starlette.Router): ...",
            "anydim/c.py": "from msgspec import Struct\nclass Item(Struct): ...",
            "anydim/errors.py": "class AnydimError(Exception): ...\nclass Busy(AnydimError): ...",
        }
    )
    assert no_lonely_base(planted) == []


def test_no_module_has_mutable_state(package: list[Source]) -> None:
    found = no_module_state(package)
    assert not found, report(found, "Use a tuple, frozenset or MappingProxyType, or give the state to an object.")


@pytest.mark.parametrize(
    "text",
    [
        "x = []",
        "x: Final = {'a': 1}",
        "x = y = {1}",
        "x = [a for a in b]",
        "x = dict(a=1)",
        "x = dict[str, int]()",
        "x = collections.defaultdict(list)",
        "x = dict.fromkeys('ab')",
        "if y:\n    x = deque()",
        "try:\n    import y\nexcept ImportError:\n    x = {}",
        "def f():\n    global x\n    x = 1",
        "@functools.lru_cache(maxsize=8)\ndef f(a): ...",
        "@cache\ndef f(*a): ...",
    ],
)
def test_module_state_is_found(text: str) -> None:
    assert len(no_module_state(plant({"anydim/x.py": text}))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "__all__ = ['a']",
        "x = (1, 2)",
        "x = frozenset({1})",
        "x = MappingProxyType({'a': 1})",
        "Ids = list[int]",
        "def f():\n    x = []",
        "class A:\n    def __init__(self):\n        self.x = {}",
        "@functools.cache\ndef f(): ...",
    ],
)
def test_constants_and_local_state_are_fine(text: str) -> None:
    assert no_module_state(plant({"anydim/x.py": text})) == []

"""Docstrings, legends and words: on the real tree and on planted ones. Forbidden words are built from parts here."""

import pytest

from .sources import Source, plant, report
from .writing import (
    no_emoji,
    no_machine_paths,
    no_own_issue_numbers,
    no_registry_hosts,
    no_workshop_words,
    opens_with_docstring,
    scripts_say_how_to_run,
    shapes_have_a_legend,
)

GUARD = 'if __name__ == "__main__":\n    main()\n'


def test_files_open_with_a_docstring(python: list[Source]) -> None:
    found = opens_with_docstring(python)
    assert not found, report(found, "Open with what the file does and what it does not know.")


@pytest.mark.parametrize("text", ["", "import os\n'''Late.'''", "# A comment.\nx = 1"])
def test_a_file_without_docstring_is_found(text: str) -> None:
    assert opens_with_docstring(plant({"tests/x.py": text, "tests/y.py": "'''Y.'''"})) == [
        "tests/x.py:1: opens without a docstring"
    ]


def test_scripts_say_how_to_run(python: list[Source]) -> None:
    found = scripts_say_how_to_run(python)
    assert not found, report(found, "Add a line such as `Run: python benchmarks/x.py` to the docstring.")


@pytest.mark.parametrize(
    ("path", "text"), [("benchmarks/x.py", f"'''X.'''\n{GUARD}"), ("anydim/__main__.py", "'''X.'''")]
)
def test_a_silent_script_is_found(path: str, text: str) -> None:
    assert len(scripts_say_how_to_run(plant({path: text}))) == 1
    assert scripts_say_how_to_run(plant({path: text.replace("X.", "X.\n\nRun: python x.py\n")})) == []
    assert scripts_say_how_to_run(plant({path: text.replace("X.", "Usage: x")})) == []


def test_shapes_have_a_legend(package: list[Source]) -> None:
    found = shapes_have_a_legend(package)
    assert not found, report(found, "Explain the letter at the top: a line such as `T tokens in the batch`.")


@pytest.mark.parametrize(
    "text", ["hidden_TD = 1", "def f(hidden_TD): ...", "self.hidden_TD = 1", "f(hidden_TD=1)", "hidden_TD2 = 1"]
)
def test_an_unexplained_letter_is_found(text: str) -> None:
    found = shapes_have_a_legend(plant({"anydim/x.py": f'"""Pools.\n\nT tokens\n"""\nimport torch\n{text}'}))
    assert len(found) == 1
    assert found[0].startswith("anydim/x.py:6: hidden_TD")
    assert found[0].endswith("nothing explains D")


@pytest.mark.parametrize(
    "legend",
    [
        "T tokens in the batch\nD width",
        "Shapes: T tokens, D width.",
        "- `T`: tokens\n- `D`: width",
        "T = tokens; D = T/2",
        "Shapes: T tokens and D components",
    ],
)
def test_an_explained_letter_is_fine(legend: str) -> None:
    text = f'"""Pools.\n\n{legend}\n"""\nfrom torch import nn\nhidden_TD = 1\nMAX_SIZE = 2\nD = 3'
    assert shapes_have_a_legend(plant({"anydim/x.py": text, "anydim/y.py": "rows_R = 1"})) == []


def test_no_machine_paths(texts: list[Source]) -> None:
    found = no_machine_paths(texts)
    assert not found, report(found, "Use a relative path, a setting, or tmp_path in a test.")


@pytest.mark.parametrize("folder", ["tmp", "root", "work"])
@pytest.mark.parametrize("before", ["", "cd ", "'", "file://", "(", "="])
def test_a_machine_path_is_found(folder: str, before: str) -> None:
    planted = plant({"docs/x.md": f"fine\n{before}/" + folder + "/x"})
    assert len(no_machine_paths(planted)) == 1
    assert no_machine_paths(planted)[0].startswith("docs/x.md:2:")


@pytest.mark.parametrize("folder", ["tmp", "root", "work"])
@pytest.mark.parametrize("text", ["tmp_path / 'x'", "src{}", "https://example.org{}", "~{}", ".{}"])
def test_relative_paths_and_addresses_are_fine(folder: str, text: str) -> None:
    assert no_machine_paths(plant({"docs/x.md": text.format(f"/{folder}/x")})) == []


def test_no_registry_hosts(texts: list[Source]) -> None:
    found = no_registry_hosts(texts)
    assert not found, report(found, "Name the package, not the host it came from.")


@pytest.mark.parametrize("host", ["files.python" + "hosted.org", "registry.npm" + "js.org"])
def test_a_registry_host_is_found(host: str) -> None:
    assert len(no_registry_hosts(plant({"package-lock.json": f'"https://{host}/x"'}))) == 1


def test_no_workshop_words(texts: list[Source]) -> None:
    found = no_workshop_words(texts) + no_own_issue_numbers(texts)
    assert not found, report(found, "Say why the code is so; how it came to be is not the reader's concern.")


@pytest.mark.parametrize(
    "words", ["helper " + "agent", "Helper-" + "agents", "sub" + "agent", "Sub-" + "agents", "../" + "shared/x"]
)
def test_a_workshop_word_is_found(words: str) -> None:
    assert len(no_workshop_words(plant({"README.md": f"Written by a {words}."}))) == 1


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("anydim/x.py", "# See #12."),
        ("anydim/x.py", "# issue #12"),
        ("docs/x.md", "Fixes #3"),
        ("docs/x.md", "our issue #3"),
        ("anydim/x.py", "# vllm issue #15465"),
    ],
)
def test_an_issue_number_is_found(path: str, line: str) -> None:
    assert len(no_own_issue_numbers(plant({path: line}))) == 1


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("docs/x.md", "vllm #15465"),
        ("docs/x.md", "(vLLM issue #15465)"),
        ("docs/x.md", "sgl-project/sglang PR #7"),
        ("docs/x.md", "rank #1"),
        ("anydim/page.css", "color: #123456"),
        ("tests/x.py", "issue #3"),
    ],
)
def test_other_numbers_are_fine(path: str, line: str) -> None:
    assert no_own_issue_numbers(plant({path: line})) == []


def test_no_emoji(texts: list[Source]) -> None:
    found = no_emoji(texts)
    assert not found, report(found, "Say it in words.")


@pytest.mark.parametrize("sign", ["\U0001f680", "\u2705", "\u26a0\ufe0f", "\u2b50"])
@pytest.mark.parametrize("path", ["README.md", "docs/x.md", "anydim/x.py"])
def test_an_emoji_is_found(path: str, sign: str) -> None:
    assert len(no_emoji(plant({path: f"Fast {sign}"}))) == 1


@pytest.mark.parametrize("path", ["anydim/starter/tokenizer.json", "tests/x.py"])
def test_emoji_in_data_are_fine(path: str) -> None:
    assert no_emoji(plant({path: "\U0001f680", "docs/y.md": "a \u2192 b \u2264 c \u2713 caf\u00e9 \u4e2d"})) == []

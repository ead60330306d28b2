"""The command itself: its help, what it refuses and in which words, and its exit codes."""

import subprocess
import sys

import pytest
from click.testing import CliRunner, Result

from anydim import __version__
from anydim.cli.main import LATER, make_program
from anydim.cli.options import serve_settings
from anydim.config import all_settings
from anydim.errors import ConfigError, ModelError, Overloaded


def invoke(*words: str) -> Result:
    return CliRunner().invoke(make_program(), list(words))


def test_version_is_said_in_both_spellings() -> None:
    for word in ("version", "--version"):
        result = invoke(word)
        assert result.exit_code == 0
        assert result.output.strip() == f"anydim {__version__}"


def test_the_module_runs_like_the_command_and_loads_no_torch() -> None:
    script = "import sys, runpy; sys.argv = ['anydim', 'serve', '--help']\n"
    script += "try: runpy.run_module('anydim', run_name='__main__')\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", timeout=60)
    assert done.stdout.startswith("Usage:")
    assert done.stdout.splitlines()[-1] == "False"


def test_help_lists_what_works_and_only_names_the_rest() -> None:
    commands, rest = invoke("--help").output.split("Commands:")[1].split("Not yet available")
    assert [line.split()[0] for line in commands.strip().splitlines()] == [
        *("advise", "check", "deploy", "embed", "fit", "index", "info", "rerank", "search", "serve", "version"),
    ]
    assert all(name in rest for name in LATER)


@pytest.mark.parametrize("name", LATER)
def test_a_later_command_says_so(name: str) -> None:
    result = invoke(name, "file", "--some-flag", "--help")
    assert result.exit_code == 2
    assert result.output == f"anydim {name}: not yet available in this version\n"


def test_help_of_serve_shows_every_setting_with_its_default_and_variable() -> None:
    text = " ".join(invoke("serve", "--help").output.split())
    for setting in all_settings():
        if setting.name in serve_settings():
            assert setting.flag in text
            assert setting.variable in text
    assert "[env ANYDIM_PORT, default 30000]" in text
    assert "--strict / --no-strict" in text


def test_help_of_serve_is_grouped_and_ends_with_examples() -> None:
    text = invoke("serve", "-h").output
    titles = [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles[:6] == ["Model", "Engine", "Server", "Index", "Other", "Examples"]


@pytest.mark.parametrize(
    ("word", "near"), [("--prot", "--port"), ("--defualt-dim", "--default-dim"), ("--api-keys", "--api-key")]
)
def test_an_unknown_flag_names_the_nearest(word: str, near: str) -> None:
    result = invoke("serve", word, "1")
    assert result.exit_code == 2
    assert near in result.output
    assert result.output.count("--") <= 4  # the wrong one, the near one, and --help


@pytest.mark.parametrize("word", ["--por", "--def", "--api"])
def test_flags_are_not_abbreviated(word: str) -> None:
    assert invoke("serve", word, "1").exit_code == 2


def test_an_unknown_command_names_the_nearest() -> None:
    result = invoke("sreve")
    assert result.exit_code == 2
    assert "serve" in result.output.splitlines()[-1]


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("wrong flag"), 2), (ModelError("no model"), 1), (Overloaded("too much"), 1)]
)
def test_our_errors_are_one_line_and_a_code(monkeypatch: pytest.MonkeyPatch, error: Exception, code: int) -> None:
    def fail(settings: object) -> int:
        raise error

    monkeypatch.setattr("anydim.cli.serve.serve_forever", fail)
    result = invoke("serve")
    assert result.exit_code == code
    assert result.stderr == f"Error: {error}\n"
    assert result.stdout == ""


def test_ctrl_c_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(settings: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("anydim.cli.serve.serve_forever", interrupt)
    result = invoke("serve")
    assert result.exit_code == 130
    assert "Traceback" not in result.output

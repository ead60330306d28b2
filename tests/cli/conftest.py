"""A command line without the caller's ANYDIM_* variables, and one that only records what it would serve."""

import os
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from anydim.cli.main import make_program
from anydim.config import Settings

Serve = Callable[..., Settings]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ANYDIM_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """The settings that reached the server instead of being served."""
    found: list[Settings] = []

    def record(settings: Settings) -> int:
        found.append(settings)
        return 0

    monkeypatch.setattr("anydim.cli.serve.serve_forever", record)
    return found


@pytest.fixture
def serve(served: list[Settings]) -> Serve:
    """Run `anydim serve` with these words; the settings that it would serve with."""

    def run(*words: str) -> Settings:
        result = CliRunner().invoke(make_program(), ["serve", *words])
        assert result.exit_code == 0, result.output
        return served.pop()

    return run

"""The real tree, read once for all the rules. Knows no rule."""

import pytest

from .sources import ROOT, Source, listed, package_only, python_only, read_texts


@pytest.fixture(scope="session")
def paths() -> list[str]:
    """Every file of the project, from its root."""
    return listed(ROOT)


@pytest.fixture(scope="session")
def texts(paths: list[str]) -> list[Source]:
    """Every text file of the project."""
    return read_texts(ROOT, paths)


@pytest.fixture(scope="session")
def python(texts: list[Source]) -> list[Source]:
    """Every Python file: package, tests, benchmarks."""
    return python_only(texts)


@pytest.fixture(scope="session")
def package(python: list[Source]) -> list[Source]:
    """Every Python file of the package."""
    return package_only(python)

"""Models that the frameworks' classes run in this process, and a server that they ask."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.process import serving
from tests.shelf import Shelf


@pytest.fixture(scope="session")
def cross_folder(shelf: Shelf) -> Path:
    """A cross-encoder with random weights: no trained one comes in a package."""
    return shelf.folder("cross-bert")


@pytest.fixture(scope="session")
def server(minilm_folder: Path) -> Iterator[str]:
    """The address of a server of all-MiniLM-L6-v2 that asks for a key."""
    with serving(minilm_folder, "--dtype", "float32", "--api-key", "s3cret-key") as running:
        yield running.address


@pytest.fixture(scope="session")
def rerank_server(cross_folder: Path) -> Iterator[str]:
    """The address of a server of that cross-encoder."""
    with serving(cross_folder, "--dtype", "float32") as running:
        yield running.address

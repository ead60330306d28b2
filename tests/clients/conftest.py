"""One real server with an embedding model and a reranker, whose answers can be checked by eye."""

from collections.abc import Iterator

import pytest

from anydim import testing
from tests.api.conftest import running


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """http://host:port of a server with `anydim/fake` (64 wide) and `anydim/fake-reranker`."""
    with testing.app(testing.FakeModel(), testing.FakeReranker()) as app, running(app) as url:
        yield url


@pytest.fixture(scope="session")
def classifier() -> Iterator[str]:
    """The same of a classifier with the labels `a` and `b`."""
    with testing.app(testing.FakeReranker(labels=("a", "b"))) as app, running(app) as url:
        yield url

"""A real model, real multilingual documents, and every database that an index can live in."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from anydim import Embedder
from anydim.retrieval import Document, Index

ARTICLES = Path(__file__).parent.parent / "data" / "udhr_articles.jsonl"


def articles(*languages: str) -> list[Document]:
    """The articles of the declaration of human rights in some languages."""
    rows = [json.loads(line) for line in ARTICLES.read_text(encoding="utf-8").splitlines()]
    return [
        Document(f"{row['lang']}-{row['article']}", row["text"], {"lang": row["lang"], "article": row["article"]})
        for row in rows
        if row["lang"] in languages
    ]


@pytest.fixture(scope="session")
def embedder(minilm_folder: Path) -> Iterator[Embedder]:
    """all-MiniLM-L6-v2 in this process, in float32 as its reference runs."""
    with Embedder(str(minilm_folder), dtype="float32", threads=1) as running:
        yield running


OpenIndex = Callable[..., Index]


@pytest.fixture
def open_index(embedder: Embedder, tmp_path: Path) -> Iterator[OpenIndex]:
    """Opens an index in a folder of the test's own, again and again; all are closed at the end."""
    opened: list[Index] = []

    def open_one(db: str | None = None, **settings: object) -> Index:
        opened.append(Index(db or str(tmp_path / "db"), embedder, **settings))
        return opened[-1]

    yield open_one
    for index in opened:
        index.close()

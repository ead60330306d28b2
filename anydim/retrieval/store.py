"""Store: what an index needs of a database, and which address means which.

Three databases fulfil it: lance.py, postgres.py, qdrant.py. This file knows none of their clients.

Legend: d coarse dimension, D full dimension.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from anydim.errors import ConfigError
from anydim.retrieval.filters import Condition
from anydim.retrieval.layout import Layout, Written

_NAME: Final = re.compile(r"(?!.*_layout$)[a-z][a-z0-9_]{0,39}")  # NAME_layout is where an index keeps its layout
_PASSWORD: Final = re.compile(r"(?<=://)([^@/]*)@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One chunk as it is stored.

    Attributes:
        document: the id of its document.
        chunk: its place there, from 0.
        text: what was embedded.
        metadata: its document's.
        digest: its document's.
        coarse: the vector that the first stage scans, as the layout writes it.
        full: the vector of the second stage; empty in rows that ``fetch`` gives.
    """

    document: str
    chunk: int
    text: str
    metadata: Mapping[str, Any]
    digest: str
    coarse: Written
    full: Written


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunk that the first stage found; ``key`` is the database's own."""

    key: Any
    score: float


class Store(Protocol):
    """A database with one index in it. Safe for many readers; one writer at a time."""

    @property
    def coarse_dtypes(self) -> Sequence[str]:
        """What the first stage can scan here; the first is the default."""
        ...

    @property
    def full_dtypes(self) -> Sequence[str]:
        """How the vectors of the second stage can be stored here; the first is the default."""
        ...

    def read_layout(self) -> bytes | None:
        """What ``write_layout`` wrote last, or None where there is no index."""
        ...

    def write_layout(self, layout: Layout, body: bytes) -> None:
        """Make the index, or give it the fields that the layout has more."""
        ...

    def digests(self, documents: Sequence[str]) -> dict[str, str]:
        """The digests of those of the documents that are in the index."""
        ...

    def replace(self, rows: Sequence[Row], documents: Sequence[str]) -> None:
        """Make ``rows`` all that there is of ``documents``, which may be new."""
        ...

    def delete(self, documents: Sequence[str]) -> None:
        """Remove documents; those that are not there are passed over."""
        ...

    def documents(self) -> Iterator[str]:
        """The id of every document, in any order."""
        ...

    def count(self) -> int:
        """How many chunks there are."""
        ...

    def nearest(self, query_d: Written, count: int, conditions: Sequence[Condition]) -> list[Candidate]:
        """The chunks whose coarse vectors are nearest to one, nearest first.

        Args:
            query_d: float32 (d,) of length one; for binary the packed bits, uint8 (d / 8,).
            count: how many at most.
            conditions: what their metadata must fulfil.
        """
        ...

    def vectors(self, keys: Sequence[Any]) -> dict[Any, Written]:
        """The full vectors (D,) behind keys of candidates; those deleted meanwhile are missing."""
        ...

    def fetch(self, keys: Sequence[Any]) -> dict[Any, Row]:
        """The chunks behind keys of candidates, without vectors; those deleted meanwhile are missing."""
        ...

    def writing(self) -> AbstractContextManager[None]:
        """Keep other writers out where two would spoil each other's work.

        Raises:
            Unavailable: on entering: another process is writing.
        """
        ...

    def finish(self) -> None:
        """Put in order what many writes have left."""
        ...

    def close(self) -> None:
        """Let go of the database."""
        ...


def open_store(address: str, collection: str) -> Store:
    """Connect to a database.

    Args:
        address: a folder for LanceDB, ``postgresql://...``, ``qdrant+http://HOST:PORT`` or ``qdrant:FOLDER``.
        collection: the name of the index in it.

    Raises:
        ConfigError: the address or the name means nothing.
        MissingExtra: the database's client is not installed.
        Unavailable: nobody answers at the address.
    """
    if not _NAME.fullmatch(collection):
        rule = "at most 40 lower-case letters, digits and _, not ending in _layout"
        raise ConfigError(f"--collection must be {rule}, got {collection!r}")
    if address.startswith(("postgresql://", "postgres://")):
        from anydim.retrieval.postgres import PostgresStore

        return PostgresStore(address, collection)
    if address.startswith(("qdrant+http://", "qdrant+https://", "qdrant:")):
        from anydim.retrieval.qdrant import QdrantStore

        return QdrantStore(address, collection)
    if "://" in address:
        known = "a folder, postgresql://..., qdrant+http://... or qdrant:FOLDER"
        raise ConfigError(f"--db must be {known}, got {without_password(address)}")
    from anydim.retrieval.lance import LanceStore

    return LanceStore(address, collection)


def without_password(address: str) -> str:
    """An address as it may be shown."""
    return _PASSWORD.sub("...@", address)

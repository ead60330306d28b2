"""Assembly: the shards of a job put together while others are still made, so that nothing is left for the end.

A thread writes each shard behind the one before it as soon as both are there. It takes the first shard's columns for
those of all; where a later one's differ, or anything goes wrong, it gives up, and the job puts its shards together at
the end. It knows shards as tables; it knows no jobs, no models and no texts.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from anydim.offline.writers import STREAMS, WRITERS, remove

_LOG = logging.getLogger(__name__)


class Assembly:
    """One output, growing beside its shards."""

    def __init__(self, made: Path, suffix: str, table: Callable[[int], Any]) -> None:
        """Begin, where the format can be written piece by piece.

        Args:
            made: the file to write; it is not there after ``stop``, or where ``finish`` gives None.
            suffix: the format.
            table: a shard's table, by its number.
        """
        self._made = made
        self._suffix = suffix
        self._table = table
        self._there: set[int] = set()
        self._count: int | None = None
        self._stopped = False
        self._changed = threading.Condition()
        self._digest: str | None = None
        self._thread: threading.Thread | None = None
        if suffix in STREAMS:
            self._thread = threading.Thread(target=self._run, name="anydim-assemble", daemon=True)
            self._thread.start()

    def add(self, number: int) -> None:
        """A shard is there."""
        with self._changed:
            self._there.add(number)
            self._changed.notify()

    def finish(self, count: int) -> str | None:
        """Wait until the first ``count`` shards stand in the file; its SHA-256, or None where it gave up."""
        with self._changed:
            self._count = count
            self._changed.notify()
        return self._join()

    def stop(self) -> None:
        """Give up, unless it has finished."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._join()

    def _join(self) -> str | None:
        if self._thread is not None:
            self._thread.join()
        return self._digest

    def _run(self) -> None:
        digest = None
        try:
            shards = self._shards()
            if (first := next(shards, None)) is not None:
                schema = first.schema.remove_metadata()
                # Of a column without a type no row holds anything so far: its type comes later, or is told of.
                self._stopped |= any(str(column.type) == "null" for column in schema)
                tables = self._alike(itertools.chain([first], shards), schema)
                digest = WRITERS[self._suffix](self._made, schema, lambda: tables, None)
        except Exception as error:  # a full disk, say: whoever assembles at the end meets it again, and tells
            _LOG.debug("shards are put together at the end: %s", error)
            digest = None
        self._digest = None if self._stopped else digest
        if self._digest is None:
            remove(self._made)

    def _shards(self) -> Iterator[Any]:
        """The tables in their order, each as soon as it is there."""
        for number in itertools.count():
            with self._changed:
                while not (self._stopped or number in self._there or number == self._count):
                    self._changed.wait()
                if self._stopped or number == self._count:
                    return
                self._there.discard(number)
            yield self._table(number)

    def _alike(self, tables: Iterator[Any], schema: Any) -> Iterator[Any]:
        """The tables up to the first one with other columns, where it gives up."""
        for table in tables:
            self._stopped |= table.schema.remove_metadata() != schema
            if self._stopped:
                return
            yield table

"""Shards: the finished parts of a job on disk, each written whole or not at all, and put together at the end.

A shard is an Arrow file beside the output: the row numbers, the kept columns, the vectors, and in its metadata a digest
of the texts it came from and the rows that failed. It knows Arrow and files; it knows no models and no texts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import msgspec
import numpy as np

from anydim.errors import AnydimError, ConfigError
from anydim.offline.assembly import Assembly
from anydim.offline.disk import Claim, check_place
from anydim.offline.records import Record
from anydim.offline.writers import ROW, SCALE, VECTOR, WRITERS, arrow, remove
from anydim.types import Output, OutputDtype

Read = TypeVar("Read")

_LOG: Final = logging.getLogger(__name__)
_TEXTS, _FAILURES = b"anydim.texts", b"anydim.failures"
_JOB: Final = "job.json"


@dataclass(frozen=True, slots=True)
class Failure:
    """A row that failed.

    Attributes:
        row: its number.
        where: where it stands.
        error: why.
        entry: what stands in the errors file in place of these three, or None.
    """

    row: int
    where: str
    error: str
    entry: Any = None

    @classmethod
    def among(cls, records: Sequence[Record], gained: Mapping[int, object]) -> list[Self]:
        """One for each record with a problem, or with an error in place of what was gained from it."""
        found = []
        for place, record in enumerate(records):
            error = gained.get(place)
            if isinstance(error, AnydimError):
                found.append(cls(record.row, record.where, error.message))
            elif record.problem:
                found.append(cls(record.row, record.where, record.problem))
        return found

    def line(self) -> bytes:
        """Its line in the errors file."""
        told = self.entry or {"row": self.row, "where": self.where, "error": self.error}
        return msgspec.json.encode(told) + b"\n"


@dataclass(frozen=True, slots=True)
class Width:
    """The form of every vector: how many values it stores, and of which type."""

    dtype: OutputDtype
    stored: int


class Parts:
    """The folder of a job's shards, beside its output."""

    def __init__(self, output: Path) -> None:
        """The folder of an output; nothing is made yet."""
        self.output = output
        self.folder = output.with_name(output.name + ".parts")
        self._made = output.with_name(output.name + ".tmp")
        self._claim = Claim(self.folder, output)
        self._assembly: Assembly | None = None

    def open(self, job: Mapping[str, Any], resume: bool, overwrite: bool) -> frozenset[int]:
        """Begin or go on; the numbers of the shards that are there. Nobody else may, until ``release``.

        Raises:
            ConfigError: as ``check_way``, or the unfinished job is another one.
        """
        self.check_way(resume, overwrite)
        self._claim.take()
        if not resume:
            for old in [each for each in self.folder.iterdir() if each.name != self._claim.name]:
                remove(old)
        told = self.folder / _JOB
        if told.exists():
            _compare(json.loads(told.read_text()), dict(job), self.folder)
        else:
            for shard in self.folder.glob("shard-*"):  # of a job whose removal was cut off
                shard.unlink()
            _write(told, json.dumps(job, indent=1, sort_keys=True).encode())
        return frozenset(int(path.stem.removeprefix("shard-")) for path in self.folder.glob("shard-*.arrow"))

    def check_way(self, resume: bool, overwrite: bool) -> None:
        """Whether something is in the way.

        Raises:
            ConfigError: the output or an unfinished job is, another command is at work on it, or it cannot be made.
        """
        check_place(self.output)
        if self.folder.exists():
            self._claim.take()
            self._claim.release()
        unfinished = (self.folder / _JOB).exists()
        if unfinished and not (resume or overwrite):
            raise ConfigError(f"{self.folder} holds an unfinished job; add --resume to go on, or --overwrite")
        if self.output.exists() and not overwrite and not (resume and unfinished):
            raise ConfigError(f"{self.output} is there already; add --overwrite, or name another output")

    def release(self) -> None:
        """Let another command go on with it."""
        self._claim.release()

    def put(self, number: int, data: Any) -> None:
        """Keep a shard, as ``encode_shard`` makes it."""
        _write(self._shard(number), data)
        self.found(number)

    def found(self, number: int) -> None:
        """A shard is there."""
        if self._assembly is not None:
            self._assembly.add(number)

    def check(self, number: int, records: Sequence[Record]) -> None:
        """Whether a finished shard came from these records.

        Raises:
            ConfigError: it did not: the input is not what it was.
        """
        before = self._meta(number)[_TEXTS].decode()
        if before != digest(records):
            raise ConfigError(f"the input has changed since {self._shard(number)} was written; start with --overwrite")

    def failures(self, count: int) -> Iterator[Failure]:
        """The failed rows of the first ``count`` shards."""
        for number in range(count):
            yield from msgspec.convert(json.loads(self._meta(number)[_FAILURES]), list[Failure])

    @contextmanager
    def growing(self) -> Iterator[None]:
        """Meanwhile the output grows with the shards, as far as that can be, and ``assemble`` has little left to do."""
        self._assembly = Assembly(self._made, self.output.suffix, self._table)
        try:
            yield
        finally:
            self._assembly.stop()
            self._assembly = None
            remove(self._made)

    def assemble(self, count: int, rows: int) -> str | None:
        """Put the shards of so many input rows together to the output, which appears whole or not at all.

        Returns:
            The output's SHA-256; None where it is a folder.
        """
        digest = self._assembly.finish(count) if self._assembly is not None else None
        if digest is None:
            write = WRITERS[self.output.suffix]
            remove(self._made)
            digest = write(self._made, self._schema(count), lambda: map(self._table, range(count)), rows)
        _settle(self._made)
        if self.output.is_dir() or self._made.is_dir():
            remove(self.output)
        self._made.replace(self.output)
        return digest

    def remove(self) -> None:
        """Forget the shards, and let others have their place."""
        (self.folder / _JOB).unlink(missing_ok=True)  # first: what is left without it belongs to no job
        for each in [each for each in self.folder.iterdir() if each.name != self._claim.name]:
            remove(each)
        self._claim.remove()

    def _shard(self, number: int) -> Path:
        return self.folder / f"shard-{number:06}.arrow"

    def _table(self, number: int) -> Any:
        return self._read(number, lambda shard: shard.read_all())

    def _meta(self, number: int) -> Mapping[bytes, bytes]:
        def read(shard: Any) -> Mapping[bytes, bytes]:
            meta: Mapping[bytes, bytes] = shard.schema.metadata or {}
            return {name: meta[name] for name in (_TEXTS, _FAILURES)}

        return self._read(number, read)

    def _read(self, number: int, read: Callable[[Any], Read]) -> Read:
        """What is read from a shard.

        Raises:
            ConfigError: it is broken.
        """
        pa, path = arrow(), self._shard(number)
        try:
            with pa.memory_map(str(path)) as file:
                return read(pa.ipc.open_file(file))
        except (pa.ArrowException, OSError, KeyError) as error:
            told = str(error).split("\n")[0]
            raise ConfigError(f"{path} is broken ({told}): remove it, and --resume makes it anew") from error

    def _schema(self, count: int) -> Any:
        """One schema for all shards: a column that is not the same everywhere becomes text."""
        pa = arrow()
        kinds: dict[str, set[Any]] = {}
        rows = 0
        for number in range(count):
            table = self._table(number)
            rows += table.num_rows
            for each in table.schema:
                kinds.setdefault(each.name, set()).add(each.type)
        types = {name: found - {pa.null()} for name, found in kinds.items()}
        for name in [name for name, found in types.items() if rows and not found]:
            _LOG.warning("no row has anything in its field %s: that column is empty", name)
        return pa.schema([(name, found.pop() if len(found) == 1 else pa.string()) for name, found in types.items()])


def encode_shard(
    records: Sequence[Record], rows: Sequence[int], columns: Mapping[str, Any], failures: Sequence[Failure]
) -> Any:
    """A shard as the bytes of an Arrow file.

    Args:
        records: all of its rows.
        rows: the place of the record that each row of the output comes from.
        columns: what these rows hold beside their number and the kept fields.
        failures: what is wrong with other records.

    Raises:
        MissingExtra: a package is missing.
    """
    pa = arrow()
    every: dict[str, Any] = {ROW: pa.array([records[place].row for place in rows], pa.int64())}
    for name in records[0].kept:
        every[name] = _column([records[place].kept[name] for place in rows])
    every |= columns
    known = [msgspec.to_builtins(failure) for failure in failures]
    meta = {_TEXTS: digest(records).encode(), _FAILURES: json.dumps(known).encode()}
    table = pa.table(every).replace_schema_metadata(meta)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def digest(records: Iterable[Record]) -> str:
    """A hash of the records' texts and what was wrong with them."""
    found = hashlib.blake2b(digest_size=16)
    for record in records:
        found.update(msgspec.json.encode([record.row, record.texts, record.problem]))
    return found.hexdigest()


def _compare(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    differs = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if differs:
        told = ", ".join(_change(name, before.get(name), now.get(name)) for name in differs)
        raise ConfigError(f"{folder} holds another job: {told}; start with --overwrite, or name another output")


def _change(name: str, before: Any, now: Any) -> str:
    """How a fact of a job has changed; of one with parts, which."""
    if isinstance(before, dict) and isinstance(now, dict):
        return f"{name} of {', '.join(sorted(each for each in {*before, *now} if before.get(each) != now.get(each)))}"
    return f"{name} was {before!r} and is {now!r}"


def _column(values: Sequence[Any]) -> Any:
    """A kept column: numbers, truth values and texts as they are, everything else as JSON."""
    pa = arrow()
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int} or kinds <= {int, float} or kinds <= {bool} or kinds <= {str}:
        with contextlib.suppress(pa.ArrowException, OverflowError, UnicodeEncodeError):
            return pa.array([float(value) if float in kinds and value is not None else value for value in values])
    return pa.array([None if value is None else _as_text(value) for value in values], pa.string())


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(msgspec.to_builtins(value, str_keys=True))


def vector_columns(outputs: Sequence[Output], width: Width) -> dict[str, Any]:
    """A column of vectors of one length, and where the type has one, a column of scales.

    Raises:
        MissingExtra: a package is missing.
    """
    pa = arrow()
    values = np.array([output.values for output in outputs], width.dtype.numpy).reshape(len(outputs), width.stored)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), width.stored)
    if not width.dtype.has_scale:
        return {VECTOR: lists}
    return {VECTOR: lists, SCALE: pa.array([output.scale for output in outputs], pa.float32())}


def _write(path: Path, data: Any) -> None:
    """A file that is there whole or not at all, also when the machine stops."""
    made = path.with_name(path.name + ".tmp")
    try:
        with made.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        made.rename(path)
    except BaseException:  # a full disk is a little less full
        made.unlink(missing_ok=True)
        raise


def _settle(path: Path) -> None:
    """Have a file, or the files of a folder, on the disk before what they were made of goes."""
    for each in [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]:
        with each.open("rb") as file:
            os.fsync(file.fileno())

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
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Final, Self

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from anydim.errors import AnydimError, ConfigError, MissingExtra
from anydim.offline.records import Record
from anydim.types import Output, OutputDtype

FORMATS: Final = (".parquet", ".jsonl", ".npy", ".arrow", ".lance")
"""What an output may be, by the end of its name."""

ROW, VECTOR, SCALE, SCORE, LINE = "row", "embedding", "scale", "score", "line"
"""Columns: the number of the input's row, and what was made: vectors and scales of some, scores, or whole lines of an
output that is nothing else.
"""

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

    def open(self, job: Mapping[str, Any], resume: bool, overwrite: bool) -> frozenset[int]:
        """Begin or go on; the numbers of the shards that are there.

        Raises:
            ConfigError: the output or an unfinished job is in the way, or the unfinished job is another one.
        """
        if self.output.exists() and not overwrite:
            raise ConfigError(f"{self.output} is there already; add --overwrite, or name another output")
        if self.folder.exists() and not resume:
            if not overwrite:
                raise ConfigError(f"{self.folder} holds an unfinished job; add --resume to go on, or --overwrite")
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        told = self.folder / _JOB
        if told.exists():
            _compare(json.loads(told.read_text()), dict(job), self.folder)
        else:
            for shard in self.folder.glob("shard-*"):  # of a job whose removal was cut off
                shard.unlink()
            _write(told, json.dumps(job, indent=1, sort_keys=True).encode())
        return frozenset(int(path.stem.removeprefix("shard-")) for path in self.folder.glob("shard-*.arrow"))

    def put(self, number: int, data: Any) -> None:
        """Keep a shard, as ``encode_shard`` makes it."""
        _write(self._shard(number), data)

    def check(self, number: int, records: Sequence[Record]) -> None:
        """Whether a finished shard came from these records.

        Raises:
            ConfigError: it did not: the input is not what it was.
        """
        if self._meta(number)[_TEXTS].decode() != digest(records):
            raise ConfigError(f"the input has changed since {self._shard(number)} was written; start with --overwrite")

    def failures(self, count: int) -> Iterator[Failure]:
        """The failed rows of the first ``count`` shards."""
        for number in range(count):
            yield from msgspec.convert(json.loads(self._meta(number)[_FAILURES]), list[Failure])

    def assemble(self, count: int, rows: int) -> None:
        """Put the shards of so many input rows together to the output, which appears whole or not at all."""
        write = _WRITERS[self.output.suffix]
        made = self.output.with_name(self.output.name + ".tmp")
        _remove(made)
        write(made, self._schema(count), lambda: (self._table(number) for number in range(count)), rows)
        _settle(made)
        _remove(self.output)
        made.rename(self.output)

    def remove(self) -> None:
        """Forget the shards."""
        shutil.rmtree(self.folder)

    def _shard(self, number: int) -> Path:
        return self.folder / f"shard-{number:06}.arrow"

    def _table(self, number: int) -> Any:
        pa = arrow()
        with pa.memory_map(str(self._shard(number))) as file:
            return pa.ipc.open_file(file).read_all()

    def _meta(self, number: int) -> Mapping[bytes, bytes]:
        pa = arrow()
        with pa.memory_map(str(self._shard(number))) as file:
            found: Mapping[bytes, bytes] = pa.ipc.open_file(file).schema.metadata
            return found

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


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, or of a folder's files in the order of their names."""
    found = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            with file.open("rb") as opened:
                while block := opened.read(1 << 20):
                    found.update(block)
    return found.hexdigest()


def arrow() -> Any:
    """pyarrow.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.ipc
    except ImportError:
        raise MissingExtra("files of vectors need a package: pip install 'anydim[offline]'") from None
    return pa


def _compare(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    differs = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
    if differs:
        told = ", ".join(f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in differs)
        raise ConfigError(f"{folder} holds another job: {told}; start with --overwrite, or name another output")


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


Tables = Callable[[], Iterator[Any]]


def _cast(table: Any, schema: Any) -> Any:
    return table.replace_schema_metadata(None).cast(schema)


def _write_parquet(path: Path, schema: Any, tables: Tables, rows: int) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema) as writer:
        for table in tables():
            writer.write_table(_cast(table, schema))


def _write_arrow(path: Path, schema: Any, tables: Tables, rows: int) -> None:
    pa = arrow()
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for table in tables():
            writer.write_table(_cast(table, schema))


def _write_jsonl(path: Path, schema: Any, tables: Tables, rows: int) -> None:
    with path.open("wb") as file:
        for table in tables():
            if LINE in table.column_names:
                file.writelines(table.column(LINE).to_pylist())
                continue
            if VECTOR not in table.column_names:
                file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in table.to_pylist())
                continue
            vectors = _matrix(table)
            others = table.drop_columns([VECTOR]).to_pylist()
            for row, vector in zip(others, vectors, strict=True):
                scale = {SCALE: row.pop(SCALE)} if SCALE in row else {}
                line = {**row, VECTOR: vector, **scale}
                file.write(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE))


def _write_npy(path: Path, schema: Any, tables: Tables, rows: int) -> None:
    """Row i is row i of the input; those that failed are zeros among vectors, and NaN among scores."""
    is_vector = VECTOR in schema.names
    kind = schema.field(VECTOR if is_vector else SCORE).type
    dtype = np.dtype((kind.value_type if is_vector else kind).to_pandas_dtype()).newbyteorder("<")
    shape = (rows, kind.list_size) if is_vector else (rows,)
    blank = dtype.type(0 if is_vector else np.nan)
    done = 0
    with path.open("wb") as file:  # a name without .npy at its end
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(file, {**header, "shape": shape})
        for table in tables():  # a mapped array would stay in memory as it grows
            places = table.column(ROW).to_numpy()
            if len(places):
                _write_blank(file, np.full(shape[1:], blank, dtype), places[0] - done)
                block = np.full((places[-1] + 1 - places[0], *shape[1:]), blank, dtype)
                block[places - places[0]] = _matrix(table) if is_vector else table.column(SCORE).to_numpy()
                file.write(block.tobytes())
                done = places[-1] + 1
        _write_blank(file, np.full(shape[1:], blank, dtype), rows - done)


def _write_blank(file: IO[bytes], row: NDArray[Any], count: int) -> None:
    """So many rows that failed."""
    for _ in range(count):
        file.write(row.tobytes())


def _write_lance(path: Path, schema: Any, tables: Tables, rows: int) -> None:
    try:
        import lancedb
    except ImportError:
        raise MissingExtra("Lance files need a package: pip install 'anydim[retrieval]'") from None
    pa = arrow()
    reader = pa.RecordBatchReader.from_batches(
        schema, (batch for table in tables() for batch in _cast(table, schema).to_batches())
    )
    folder = path.with_name(path.name + ".db")
    _remove(folder)
    lancedb.connect(str(folder)).create_table("vectors", reader)
    (folder / "vectors.lance").rename(path)
    shutil.rmtree(folder)


def _matrix(table: Any) -> NDArray[Any]:
    column = table.column(VECTOR).combine_chunks()
    size = column.type.list_size
    found: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, size)
    return found


def _write(path: Path, data: Any) -> None:
    """A file that is there whole or not at all, also when the machine stops."""
    made = path.with_name(path.name + ".tmp")
    with made.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    made.rename(path)


def _settle(path: Path) -> None:
    """Have a file, or the files of a folder, on the disk before what they were made of goes."""
    for each in [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]:
        with each.open("rb") as file:
            os.fsync(file.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


_WRITERS: Final[Mapping[str, Callable[[Path, Any, Tables, int], None]]] = MappingProxyType(
    {
        ".parquet": _write_parquet,
        ".jsonl": _write_jsonl,
        ".npy": _write_npy,
        ".arrow": _write_arrow,
        ".lance": _write_lance,
    }
)

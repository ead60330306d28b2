"""Records: files, globs, folders, addresses and standard input -> texts, one at a time, with the columns to keep.

JSONL, CSV, Parquet and plain text (one text a line), compressed or not, wherever fsspec reads. What has no text becomes
a record that says why, and the rest goes on. It knows files; it knows no tokens, vectors or outputs, and not which
fields are wanted: a Take does.
"""

from __future__ import annotations

import csv
import importlib
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol

import msgspec

from anydim.errors import InvalidRequest, MissingExtra

Format = Literal["auto", "jsonl", "csv", "parquet", "text"]
Fields = Mapping[str, Any]


class Take(Protocol):
    """What is taken from the fields of a row."""

    @property
    def columns(self) -> Sequence[str]:
        """The fields that it may read; a header must have one of them."""
        ...

    def facts(self) -> dict[str, Any]:
        """What it takes, for the job's manifest."""
        ...

    def __call__(self, fields: Fields) -> tuple[str, ...]:
        """The texts of a row.

        Raises:
            InvalidRequest: they are not there, or are no texts.
        """
        ...


@dataclass(frozen=True, slots=True)
class OneText:
    """A Take of the text in one field."""

    column: str = "text"

    @property
    def columns(self) -> Sequence[str]:
        """See Take."""
        return (self.column,)

    def facts(self) -> dict[str, Any]:
        """See Take."""
        return {"column": self.column}

    def __call__(self, fields: Fields) -> tuple[str, ...]:
        """See Take."""
        return (text_of(fields.get(self.column), self.column),)


STDIN: Final = "-"
_ROWS: Final = 256  # Parquet rows in memory at a time
_BLOCK: Final = 8 << 20  # bytes of a Parquet column that are read at once; by default its whole row group
_PACKED: Final = (".gz", ".bz2", ".xz", ".zst")
_MOST_FIELD: Final = (1 << 31) - 1  # bytes of a CSV field, what a C long holds everywhere
_NO_LINES: Final = ".zst"  # whose reader gives bytes, but no lines
_SUFFIXES: Final = MappingProxyType(
    {
        ".jsonl": "jsonl",
        ".ndjson": "jsonl",
        ".csv": "csv",
        ".parquet": "parquet",
        ".txt": "text",
        ".md": "text",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How rows are read.

    Attributes:
        take: which fields of a row are its texts; lines of plain text have one field, the last that it may read.
        keep: fields that go along to the output.
        format: what the files are; ``auto`` goes by their names, and for standard input by its first character.
    """

    take: Take = field(default_factory=OneText)
    keep: Sequence[str] = ()
    format: Format = "auto"


@dataclass(frozen=True, slots=True)
class Record:
    """One row of the input.

    Attributes:
        row: its number through all inputs, from 0.
        where: file and line or row, for people.
        texts: what was taken from it; empty where there is a problem.
        problem: why it has no texts; empty where it has.
        kept: the fields to keep.
    """

    row: int
    where: str
    texts: tuple[str, ...]
    problem: str = ""
    kept: Fields = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The first of its texts, empty where there is none."""
        return self.texts[0] if self.texts else ""


Row = Fields | str
"""The fields of a row, or what is wrong with it."""


def read_records(inputs: Sequence[str], reading: Reading) -> Iterator[Record]:
    """Every record of the inputs, in the order given; folders and globs in the order of names.

    Args:
        inputs: files, folders (walked; files of other kinds are passed over), globs, addresses such as
            ``s3://bucket/file.jsonl.gz``, or ``-`` for standard input.
        reading: how rows are read.

    Raises:
        InvalidRequest: an input is not there, or of no known kind; said before anything is read.
        MissingExtra: a package is missing.
    """
    return _numbered([source for given in inputs for source in _sources(given, reading.format)], reading)


def count_records(inputs: Sequence[str], reading: Reading) -> int:
    """About how many records there are, for a progress bar; 0 where only reading all of it would tell.

    Raises:
        InvalidRequest, MissingExtra: as ``read_records``.
    """
    counts = [_count(source) for given in inputs for source in _sources(given, reading.format)]
    return sum(counts) if all(counts) else 0


def is_input(file: Path, inputs: Sequence[str], reading: Reading) -> bool:
    """Whether a file of this machine is among the inputs.

    Raises:
        InvalidRequest, MissingExtra: as ``read_records``.
    """
    sources = (source for given in inputs for source in _sources(given, reading.format))
    return any(_is_local(source) and file.samefile(source.path) for source in sources)


@dataclass(frozen=True, slots=True)
class _Source:
    """One file: its file system (None for standard input), its path there, its name for people, and what it is."""

    files: Any
    path: str
    name: str
    format: str


def _numbered(sources: Sequence[_Source], reading: Reading) -> Iterator[Record]:
    number = 0
    for source in sources:
        for line, row in enumerate(_rows(source, reading), 1):
            yield _record(number, f"{source.name}:{line}", row, reading)
            number += 1


def _record(number: int, where: str, row: Row, reading: Reading) -> Record:
    if isinstance(row, str):
        return Record(number, where, (), row, dict.fromkeys(reading.keep))
    kept = {name: row.get(name) for name in reading.keep}
    try:
        return Record(number, where, reading.take(row), "", kept)
    except InvalidRequest as problem:
        return Record(number, where, (), problem.message, kept)


def text_of(value: Any, name: str) -> str:
    """A field's value, where it is a text that can be read.

    Raises:
        InvalidRequest: it is not.
    """
    if not isinstance(value, str):
        found = "is missing" if value is None else f"is no text but {type(value).__name__}"
        raise InvalidRequest(f"{name} {found}", name)
    if not value.strip():
        raise InvalidRequest(f"{name} is empty", name)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name} is not UTF-8", name) from None
    return value


def _sources(given: str, wanted: Format) -> list[_Source]:
    if given == STDIN:
        return [_Source(None, STDIN, "stdin", wanted)]
    fsspec = _package("fsspec")
    try:
        files, path = fsspec.core.url_to_fs(given)
        if any(sign in given for sign in "*?["):
            paths = sorted(files.glob(path))
        else:
            paths = sorted(files.find(path)) if files.isdir(path) else [path] if files.exists(path) else []
    except (ImportError, ValueError, OSError) as error:
        raise InvalidRequest(f"{given} cannot be opened: {error}", "inputs") from error
    found = [
        _Source(files, each, each, kind) for each in paths if (kind := wanted if wanted != "auto" else _kind(each))
    ]
    if not found:
        why = "is of no known kind" if paths else "does not exist"
        known = f"known are {', '.join(_SUFFIXES)}, and these packed as {', '.join(_PACKED)}"
        raise InvalidRequest(f"{given} {why}; {known}" if paths else f"{given} {why}", "inputs")
    return found


def _is_local(source: _Source) -> bool:
    return source.files is not None and "file" in source.files.protocol


def _count(source: _Source) -> int:
    if not _is_local(source) or source.path.lower().endswith(_PACKED) or source.format == "auto":
        return 0
    with source.files.open(source.path, "rb") as file:
        if source.format == "parquet":
            with suppress(Exception):  # what is wrong with it is said where it is read
                return int(_package("pyarrow.parquet").ParquetFile(file).metadata.num_rows)
            return 0
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _kind(path: str) -> str:
    """What a file is by its name, compression aside; empty where that is not known."""
    suffixes = [suffix.lower() for suffix in PurePosixPath(path).suffixes]
    if suffixes and suffixes[-1] in _PACKED:
        suffixes.pop()
    return _SUFFIXES.get(suffixes[-1] if suffixes else "", "")


def _rows(source: _Source, reading: Reading) -> Iterator[Row]:
    with _opened(source) as file:
        kind = source.format
        if kind == "auto":
            kind = "jsonl" if file.peek(1)[:1] == b"{" else "text"
        try:
            yield from _READERS[kind](file, reading)
        except (OSError, EOFError, UnicodeDecodeError) as error:
            yield f"cannot be read from here on: {error}"


@contextmanager
def _opened(source: _Source) -> Iterator[io.BufferedReader]:
    if source.files is None:
        yield sys.stdin.buffer  # type: ignore[misc]  # a BufferedReader, where it is a file or a pipe
        return
    try:
        file = source.files.open(source.path, "rb", compression="infer")
    except (ImportError, ValueError, OSError) as error:
        raise InvalidRequest(f"{source.name} cannot be opened: {error}", "inputs") from error
    with file, io.BufferedReader(file) if source.path.lower().endswith(_NO_LINES) else file as lines:
        yield lines


def _read_jsonl(file: io.BufferedReader, reading: Reading) -> Iterator[Row]:
    for line in file:
        try:
            row = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield f"is not JSON: {error}"
            continue
        yield row if isinstance(row, dict) else "is not a JSON object"


def _read_csv(file: io.BufferedReader, reading: Reading) -> Iterator[Row]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    csv.field_size_limit(_MOST_FIELD)  # 128 KiB by default, which a document may well have
    rows = csv.DictReader(text)
    try:
        found = rows.fieldnames or ()
        if not set(reading.take.columns) & set(found):
            yield f"the header has no column {' or '.join(reading.take.columns)}; it has {', '.join(found) or 'none'}"
            return
        yield from rows
    except csv.Error as error:
        yield f"is not CSV from here on: {error}"
    finally:
        text.detach()


def _read_parquet(file: io.BufferedReader, reading: Reading) -> Iterator[Row]:
    parquet = _package("pyarrow.parquet")
    import pyarrow as pa

    try:
        table = parquet.ParquetFile(file, buffer_size=_BLOCK, pre_buffer=False)
        wanted = [name for name in (*reading.take.columns, *reading.keep) if name in table.schema_arrow.names]
        for batch in table.iter_batches(_ROWS, columns=wanted):
            yield from batch.to_pylist()
    except pa.ArrowException as error:
        yield f"is not Parquet from here on: {error}"


def _read_text(file: io.BufferedReader, reading: Reading) -> Iterator[Row]:
    for line in file:
        yield {reading.take.columns[-1]: line.decode("utf-8-sig", errors="surrogateescape").rstrip("\r\n")}


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtra("files of texts need a package: pip install 'anydim[offline]'") from None


_READERS: Final[Mapping[str, Callable[[io.BufferedReader, Reading], Iterator[Row]]]] = MappingProxyType(
    {"jsonl": _read_jsonl, "csv": _read_csv, "parquet": _read_parquet, "text": _read_text}
)

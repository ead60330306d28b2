"""Records: files, globs, folders, addresses and standard input -> texts, one at a time, with the columns to keep.

JSONL, CSV, Parquet and plain text (one text a line), compressed or not, wherever fsspec reads. What has no text becomes
a record that says why, and the rest goes on. It knows files; it knows no tokens, vectors or outputs, and not which
fields are wanted: a Take does.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
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
_PACKAGES: Final = MappingProxyType(
    {
        "zlib": "error",
        "lzma": "LZMAError",
        "zstandard": "ZstdError",
        "backports.zstd": "ZstdError",
        "compression.zstd": "ZstdError",
        "isal.isal_zlib": "error",
    }
)  # that fsspec may unpack with, and what they raise beside OSError
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
        where: file and line, or row from 1 where there are no lines, for people.
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
        for line, row in _rows(source, reading):
            yield _record(number, _printable(f"{source.name}:{line}"), row, reading)
            number += 1


def _record(number: int, where: str, row: Row, reading: Reading) -> Record:
    if isinstance(row, str):
        return Record(number, where, (), _printable(row), dict.fromkeys(reading.keep))
    kept = {name: row.get(name) for name in reading.keep}
    try:
        for name, value in kept.items():
            _check_utf8(value, name)
        return Record(number, where, reading.take(row), "", kept)
    except InvalidRequest as problem:
        return Record(number, where, (), _printable(problem.message), kept)


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
    _check_utf8(value, name)
    return value


def _check_utf8(value: Any, name: str) -> None:
    try:
        if isinstance(value, str):
            value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name} is not UTF-8", name) from None


def _printable(text: str) -> str:
    """A text that can be written, whatever bytes came in place of characters."""
    return text.encode("utf-8", "backslashreplace").decode()


def _sources(given: str, wanted: Format) -> list[_Source]:
    if given == STDIN:
        if sys.stdin is None:
            raise InvalidRequest("standard input is closed: there is nothing to read from -", "inputs")
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


def _rows(source: _Source, reading: Reading) -> Iterator[tuple[int, Row]]:
    """Every row with the number of its line; of Parquet, which has none, with that of the row, from 1."""
    line = 0
    with _opened(source) as file:
        kind = source.format
        if kind == "auto":
            kind = "jsonl" if file.peek(1)[:1] == b"{" else "text"
        try:
            for line, row in _READERS[kind](file, reading):
                yield line, row
        except _broken() as error:
            yield line + 1, f"cannot be read from here on: {error}"


def _broken() -> tuple[type[Exception], ...]:
    """What is raised where a file is cut off, damaged or unreadable; packages that unpack have errors of their own."""
    loaded = [(sys.modules.get(package), name) for package, name in _PACKAGES.items()]
    own = [getattr(package, name) for package, name in loaded if package is not None]
    return (OSError, EOFError, UnicodeDecodeError, *own)


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


def _read_jsonl(file: io.BufferedReader, reading: Reading) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            yield number, "is an empty line"
            continue
        try:
            row = _decoded(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield number, f"is not JSON: {error}"
            continue
        yield number, row if isinstance(row, dict) else "is not a JSON object"


def _decoded(line: bytes) -> Any:
    """JSON, and what Python writes as such: NaN, infinities, lone surrogates, numbers of any size; behind a BOM too.

    Raises:
        DecodeError, UnicodeDecodeError, RecursionError: it is neither.
    """
    try:
        return msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        with suppress(ValueError):
            return json.loads(line.decode("utf-8-sig"))
        raise


def _read_csv(file: io.BufferedReader, reading: Reading) -> Iterator[tuple[int, Row]]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    csv.field_size_limit(_MOST_FIELD)  # 128 KiB by default, which a document may well have
    rows = csv.DictReader(text)
    try:
        found = rows.fieldnames or ()
        if not set(reading.take.columns) & set(found):
            columns = " or ".join(reading.take.columns)
            yield 1, f"the header has no column {columns}; it has {', '.join(map(repr, found)) or 'none'}"
            return
        for row in rows:
            yield rows.line_num - sum(str(value).count("\n") for value in row.values()), row
    except csv.Error as error:
        yield rows.line_num, f"is not CSV from here on: {error}"
    finally:
        text.detach()


def _read_parquet(file: io.BufferedReader, reading: Reading) -> Iterator[tuple[int, Row]]:
    parquet = _package("pyarrow.parquet")
    import pyarrow as pa

    done = 0
    try:
        table = parquet.ParquetFile(file, buffer_size=_BLOCK, pre_buffer=False)
        wanted = [name for name in (*reading.take.columns, *reading.keep) if name in table.schema_arrow.names]
        for batch in table.iter_batches(_ROWS, columns=wanted):
            yield from enumerate(batch.to_pylist(), done + 1)
            done += len(batch)
    except pa.ArrowException as error:
        yield done + 1, f"is not Parquet from here on: {error}"


def _read_text(file: io.BufferedReader, reading: Reading) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(file, 1):
        yield number, {reading.take.columns[-1]: line.decode("utf-8-sig", errors="surrogateescape").rstrip("\r\n")}


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtra("files of texts need a package: pip install 'anydim[offline]'") from None


_READERS: Final[Mapping[str, Callable[[io.BufferedReader, Reading], Iterator[tuple[int, Row]]]]] = MappingProxyType(
    {"jsonl": _read_jsonl, "csv": _read_csv, "parquet": _read_parquet, "text": _read_text}
)

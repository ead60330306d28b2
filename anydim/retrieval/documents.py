"""Documents: JSONL, CSV, Parquet, text and Markdown files -> ids, texts and metadata, one at a time.

What cannot be a document becomes a Refusal that says where and why, and the rest goes on. It knows files; it knows no
tokens, vectors or databases.
"""

from __future__ import annotations

import datetime
import decimal
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from anydim.errors import InvalidRequest, MissingExtra

_MOST_ROWS: Final = 256  # Parquet rows in memory at a time
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Document:
    """A text with an id of its own.

    Attributes:
        id: what replaces it later, and what a search names.
        text: what is searched.
        metadata: anything that JSON holds; texts, numbers and truth values can be filtered on.
    """

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def digest(self) -> str:
        """A hash of text and metadata: equal digests need no new vectors."""
        body = msgspec.json.encode([self.text, dict(self.metadata)], order="sorted")
        return hashlib.blake2b(body, digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that is no document.

    Attributes:
        where: the file, and the line or row where there are several.
        reason: what is wrong with it.
    """

    where: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which fields of a row are what.

    Attributes:
        text: fields whose texts are joined by a blank line; the others become metadata.
        id: the field with the id; rows without it are named after file and row.
    """

    text: Sequence[str] = ("text",)
    id: str = "id"


Entry = Document | Refusal


def read_documents(paths: Sequence[Path], columns: Columns) -> Iterator[Entry]:
    """Every document below the paths, in the order of the paths and then of file names.

    Args:
        paths: files, or folders that are walked; files of other kinds in a folder are passed over.
        columns: which fields of a row are what.

    Raises:
        InvalidRequest: a path is not there, or is a file of another kind.
        MissingExtra: CSV and Parquet need pyarrow.
    """
    for path, name in _files(paths):
        yield from _READERS[path.suffix.lower()](path, name, columns)


def count_documents(paths: Sequence[Path]) -> int:
    """About how many documents ``read_documents`` will find, for a progress bar: lines, rows or files.

    Raises:
        InvalidRequest: as ``read_documents``.
    """
    return sum(_count(path) for path, _ in _files(paths))


def checked(document: Document) -> Entry:
    """The document, or why it cannot be one."""
    reason = _objection(document)
    return Refusal(document.id[:200], reason) if reason else document


def _objection(document: Document) -> str:
    if not document.text.strip():
        return "has no text"
    if not document.id:
        return "has an empty id"
    try:
        body = msgspec.json.encode([document.id, document.text, dict(document.metadata)])
    except (TypeError, ValueError, UnicodeEncodeError) as error:
        return f"cannot be written as JSON ({error})"
    return "holds a NUL character, as binary files do" if b"\\u0000" in body else ""


def _files(paths: Sequence[Path]) -> Iterator[tuple[Path, str]]:
    """Each file with the name that its documents carry: relative to the folder that was given."""
    for path in paths:
        if path.is_dir():
            yield from _walk(path)
        elif not path.exists():
            raise InvalidRequest(f"{path} does not exist", "docs")
        elif path.suffix.lower() not in _READERS:
            kinds = ", ".join(sorted(_READERS))
            raise InvalidRequest(f"{path} is no file that can be read; known are {kinds}, and folders of them", "docs")
        else:
            yield path, path.name


def _walk(folder: Path) -> Iterator[tuple[Path, str]]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place, name)
            if path.suffix.lower() in _READERS and not name.startswith("."):
                yield path, path.relative_to(folder).as_posix()


def _count(path: Path) -> int:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return int(_parquet(path).metadata.num_rows)
    if suffix not in (".jsonl", ".ndjson", ".csv"):
        return 1
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK), b""))


def _read_lines(path: Path, name: str, columns: Columns) -> Iterator[Entry]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _of_line(line, f"{name}:{number}", columns)


def _of_line(line: bytes, where: str, columns: Columns) -> Entry:
    try:
        row = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Refusal(where, f"is not JSON: {error}")
    if not isinstance(row, dict):
        return Refusal(where, "is not a JSON object")
    return _of_row(row, where, columns)


def _read_csv(path: Path, name: str, columns: Columns) -> Iterator[Entry]:
    csv = _pyarrow("csv")
    import pyarrow as pa

    kinds = dict.fromkeys([columns.id, *columns.text], pa.string())
    try:
        batches = csv.open_csv(
            path,
            parse_options=csv.ParseOptions(newlines_in_values=True),
            convert_options=csv.ConvertOptions(column_types=kinds, strings_can_be_null=True),
        )
        yield from _of_batches(batches, name, columns)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        yield Refusal(name, f"is not CSV from here on: {error}")


def _read_parquet(path: Path, name: str, columns: Columns) -> Iterator[Entry]:
    yield from _of_batches(_parquet(path).iter_batches(_MOST_ROWS), name, columns)


def _of_batches(batches: Any, name: str, columns: Columns) -> Iterator[Entry]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            number += 1
            yield _of_row(row, f"{name}:{number}", columns)


def _read_text(path: Path, name: str, columns: Columns) -> Iterator[Entry]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        yield Refusal(name, "is not UTF-8 text")
        return
    except OSError as error:
        yield Refusal(name, f"cannot be read: {error.strerror}")
        return
    heading = _heading(text) if path.suffix.lower() in _MARKDOWN else ""
    yield checked(Document(name, text, {"title": heading} if heading else {}))


def _heading(text: str) -> str:
    """The first heading of a Markdown text."""
    lines = (line.strip() for line in text.splitlines())
    return next((line.lstrip("#").strip() for line in lines if line.startswith("#")), "")


def _of_row(row: Mapping[str, Any], where: str, columns: Columns) -> Entry:
    texts = [row.get(name) for name in columns.text]
    wrong = [name for name, text in zip(columns.text, texts, strict=True) if not isinstance(text, str | None)]
    if wrong:
        return Refusal(where, f"has no text in {wrong[0]}")
    if not any(texts):
        return Refusal(where, f"has no {' or '.join(columns.text)}")
    number = row.get(columns.id)
    if not isinstance(number, str | int | None) or isinstance(number, bool):
        return Refusal(where, f"has an {columns.id} that is neither text nor a whole number")
    rest = {name: _plain(value) for name, value in row.items() if name not in columns.text and name != columns.id}
    text = "\n\n".join(text for text in texts if text)
    found = checked(Document(where if number is None else str(number), text, rest))
    return Refusal(where, found.reason) if isinstance(found, Refusal) else found


def _plain(value: Any) -> Any:
    """A value as JSON writes it."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    return float(value) if isinstance(value, decimal.Decimal) else value


def _parquet(path: Path) -> Any:
    parquet = _pyarrow("parquet")
    import pyarrow as pa

    try:
        return parquet.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InvalidRequest(f"{path} is not Parquet: {error}", "docs") from error


def _pyarrow(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"pyarrow.{module}")
    except ImportError:
        raise MissingExtra("CSV and Parquet need a package: pip install 'anydim[retrieval]'") from None


_MARKDOWN: Final = frozenset({".md", ".markdown"})
_READERS: Final[Mapping[str, Callable[[Path, str, Columns], Iterator[Entry]]]] = MappingProxyType(
    {
        ".jsonl": _read_lines,
        ".ndjson": _read_lines,
        ".csv": _read_csv,
        ".parquet": _read_parquet,
        ".txt": _read_text,
        ".md": _read_text,
        ".markdown": _read_text,
    }
)

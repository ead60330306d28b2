"""Corpus: the user's texts or stored vectors as full rows with their ids, from files.

Texts come as `anydim embed` reads them and go through an Embedder once, at full width. Stored vectors are an NPY matrix
or a Parquet column, such as `anydim embed` writes. It knows files and rows; it knows no task.

Legend: N rows, D full dimension.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from anydim.errors import InvalidRequest
from anydim.offline.records import Format, OneText, Reading, Record, read_records
from anydim.quality.extra import need
from anydim.types import Float32Array

if TYPE_CHECKING:
    from anydim.embedder import Embedder

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""

_PART: Final = 512  # texts of one call
_CHECKED: Final = 65_536  # rows looked at together
_IDS: Final = ("id", "_id")
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which fields of a row are what.

    Attributes:
        text: the text.
        id: what labels call it; by default ``id`` or ``_id`` where a row has one, else the row's number.
        vector: a Parquet column with stored vectors.
        format: what files of texts are; ``auto`` goes by their names.
    """

    text: str = "text"
    id: str | None = None
    vector: str = "embedding"
    format: Format = "auto"

    @property
    def ids(self) -> tuple[str, ...]:
        """Fields that may hold the id, the likeliest first."""
        return (self.id,) if self.id else _IDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Rows of a file.

    Attributes:
        name: of the file.
        ids: what labels call the rows.
        texts: their texts; empty where the file holds vectors.
        vectors_ND: float32 (N, D), mapped from the file where that is possible; None until texts are embedded.
        fields: further fields by name.
        skipped: rows without a text, with the reason.
    """

    name: str
    ids: Sequence[str]
    texts: Sequence[str] = ()
    vectors_ND: Float32Array | None = None
    fields: Mapping[str, Sequence[Any]] = field(default_factory=lambda: MappingProxyType({}))
    skipped: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def rows(self) -> Float32Array:
        """The vectors, which are there once texts are embedded."""
        assert self.vectors_ND is not None, "texts are embedded before they are compared"
        return self.vectors_ND


def read_corpus(file: str, columns: Columns, more: Sequence[str] = ()) -> Corpus:
    """The rows of a file, with the fields ``more``.

    Raises:
        InvalidRequest: the file is not there, broken, without rows, or lacks a field.
        MissingExtra: a package is missing.
    """
    suffix = Path(file).suffix.lower()
    if suffix == ".npy":
        found = _read_npy(file, more)
    elif suffix == ".parquet" and _holds_vectors(file, columns.vector):
        found = _read_parquet(file, columns, more)
    else:
        found = _read_texts(file, columns, more)
    if not len(found):
        why = f": {found.skipped[0]}" if found.skipped else ""
        raise InvalidRequest(f"{file} holds nothing to measure{why}", "corpus")
    if len(set(found.ids)) < len(found):
        twice, _ = Counter(found.ids).most_common(1)[0]
        raise InvalidRequest(f"{file}: two rows have the id {twice}", "corpus")
    return found


def with_vectors(corpus: Corpus, embedder: Embedder | None, input_type: str | None, progress: Progress) -> Corpus:
    """The corpus with full vectors; texts are embedded once.

    Args:
        corpus: texts or stored vectors.
        embedder: the model; only texts need it.
        input_type: query or document; None for neither.
        progress: told how many texts are done.

    Raises:
        ComputeFailed: the model gave no finite vector for a text.
    """
    if corpus.vectors_ND is not None:
        return corpus
    assert embedder is not None, "texts come with a model"
    return replace(corpus, vectors_ND=embed_texts(corpus.texts, embedder, input_type, progress))


def embed_texts(texts: Sequence[str], embedder: Embedder, input_type: str | None, progress: Progress) -> Float32Array:
    """Full vectors of texts, float32 (N, D), unit length; long texts are cut at their end.

    Raises:
        ComputeFailed: the model gave no finite vector for a text.
    """
    width = embedder.card.width
    vectors_ND = np.empty((len(texts), width), np.float32)
    for start in range(0, len(texts), _PART):
        part = texts[start : start + _PART]
        vectors_ND[start : start + len(part)] = embedder.embed(
            part, output_dim=width, input_type=input_type, truncate="end", show_progress=False
        )
        progress("embedding", start + len(part), len(texts))
    return vectors_ND


def _read_texts(file: str, columns: Columns, more: Sequence[str]) -> Corpus:
    reading = Reading(take=OneText(columns.text), keep=(*columns.ids, *more), format=columns.format)
    records = list(read_records([file], reading))
    good = [record for record in records if not record.problem]
    fields = {name: [_field(record, name) for record in good] for name in more}
    return Corpus(
        name=Path(file).name,
        ids=[_id_of(record, columns) for record in good],
        texts=[record.text for record in good],
        fields=fields,
        skipped=[f"{record.where}: {record.problem}" for record in records if record.problem],
    )


def _id_of(record: Record, columns: Columns) -> str:
    for name in columns.ids:
        if record.kept.get(name) is not None:
            return str(record.kept[name])
    if columns.id:
        raise InvalidRequest(f"{record.where} has no field {columns.id}", "id_field")
    return str(record.row)


def _field(record: Record, name: str) -> Any:
    if record.kept.get(name) is None:
        raise InvalidRequest(f"{record.where} has no field {name}", name)
    return record.kept[name]


def _read_npy(file: str, more: Sequence[str]) -> Corpus:
    if more:
        raise InvalidRequest(f"{file} holds vectors alone, and no field {more[0]}: use Parquet", more[0])
    try:
        matrix = np.load(file, mmap_mode="c", allow_pickle=False)  # writable, as torch wants it; never written
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"{file} cannot be read: {error}", "corpus") from error
    return Corpus(name=Path(file).name, ids=list(map(str, range(len(matrix)))), vectors_ND=_checked(matrix, file))


def _schema(file: str) -> Any:
    try:
        return need("pyarrow.parquet").read_schema(file)
    except (OSError, ValueError) as error:  # pyarrow's own errors are kinds of these
        raise InvalidRequest(f"{file} cannot be read: {error}", "corpus") from error


def _holds_vectors(file: str, column: str) -> bool:
    """Whether a Parquet column holds lists."""
    schema = _schema(file)
    return column in schema.names and hasattr(schema.field(column).type, "value_type")


def _read_parquet(file: str, columns: Columns, more: Sequence[str]) -> Corpus:
    names = _schema(file).names
    missing = [name for name in (*more, *filter(None, [columns.id])) if name not in names]
    if missing:
        raise InvalidRequest(f"{file} has no column {missing[0]}; it has {', '.join(names)}", missing[0])
    named = next((name for name in columns.ids if name in names), None)
    wanted = [columns.vector, *more, *filter(None, [named])]
    table = need("pyarrow.parquet").read_table(file, columns=wanted)
    matrix = stored_vectors(table.column(columns.vector), file, columns.vector)
    ids = map(str, table.column(named).to_pylist() if named else range(len(matrix)))
    fields = {name: table.column(name).to_pylist() for name in more}
    return Corpus(name=Path(file).name, ids=list(ids), vectors_ND=_checked(matrix, file), fields=fields)


def stored_vectors(column: Any, file: str, name: str) -> NDArray[Any]:
    """A Parquet column of lists of numbers as a matrix.

    Raises:
        InvalidRequest: rows have no vector, or vectors of different lengths.
    """
    chunks = [chunk for chunk in column.chunks if len(chunk)]
    if not chunks:
        return np.empty((0, 1), np.float32)
    width = len(chunks[0][0]) if chunks[0][0].is_valid else 0
    parts = [np.asarray(chunk.flatten().to_numpy(zero_copy_only=False)) for chunk in chunks]
    if column.null_count or any(len(part) != width * len(chunk) for part, chunk in zip(parts, chunks, strict=True)):
        raise InvalidRequest(f"{file}: {name} holds rows without a vector, or of different lengths", name)
    return np.concatenate(parts).reshape(-1, width)


def _checked(matrix: NDArray[Any], file: str) -> Float32Array:
    """Rows that can be compared, as float32; the matrix itself where it is that already."""
    if matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise InvalidRequest(
            f"{file} holds {matrix.dtype} {matrix.shape}; full vectors are a matrix of floats", "corpus"
        )
    for start in range(0, len(matrix), _CHECKED):
        part = matrix[start : start + _CHECKED]
        lengths_N = np.abs(part).max(axis=1)
        bad = np.flatnonzero(~(np.isfinite(lengths_N) & (lengths_N > 0)))
        if len(bad):
            raise InvalidRequest(f"{file}: row {start + bad[0]} is zero or not finite", "corpus")
    return matrix.astype(np.float32, copy=False)


def told_skipped(corpus: Corpus) -> list[str]:
    """What to say of rows that were passed over; nothing where there are none."""
    if not corpus.skipped:
        return []
    rest = len(corpus.skipped) - _SHOWN
    more = [f"and {rest:,} more"] if rest > 0 else []
    return [f"{corpus.name}: {len(corpus.skipped):,} rows passed over", *corpus.skipped[:_SHOWN], *more]

"""Writers: tables of shards, one after another, to a file of each format.

Each writer gets tables of one schema in the order of the input, and says the SHA-256 of what it wrote, which it takes
on the way. It knows Arrow and files; it knows no jobs, no models and no texts.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from anydim.errors import MissingExtra

ROW, VECTOR, SCALE, SCORE, LINE = "row", "embedding", "scale", "score", "line"
"""Columns: the number of the input's row, and what was made: vectors and scales of some, scores, or whole lines of an
output that is nothing else.
"""

Tables = Callable[[], Iterator[Any]]
Writer = Callable[[Path, Any, Tables, int | None], str | None]
"""From a path, a schema, the tables and the rows of the input, None where they are not known yet, to the SHA-256 of the
file; None where the output is a folder.
"""

_BUFFER_BYTES: Final = 1 << 18


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


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file."""
    found = hashlib.sha256()
    with path.open("rb") as opened:
        while block := opened.read(_BUFFER_BYTES):
            found.update(block)
    return found.hexdigest()


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class _Hashed(io.FileIO):
    """A file to write from start to end, and the SHA-256 of what was written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "wb")
        self.sha256 = hashlib.sha256()

    def write(self, data: Any) -> int:
        count = super().write(data)
        self.sha256.update(memoryview(data).cast("B")[:count])
        return count

    def seekable(self) -> bool:
        return False


@contextmanager
def _new_file(path: Path) -> Iterator[tuple[IO[bytes], Callable[[], str]]]:
    """A file, and what gives the hash of all that was written to it."""
    raw = _Hashed(path)
    with io.BufferedWriter(raw, _BUFFER_BYTES) as file:

        def digest() -> str:
            file.flush()
            return raw.sha256.hexdigest()

        yield file, digest


def _cast(table: Any, schema: Any) -> Any:
    return table.replace_schema_metadata(None).cast(schema)


def _write_parquet(path: Path, schema: Any, tables: Tables, rows: int | None) -> str:
    import pyarrow.parquet as pq

    others = [name for name in schema.names if name != VECTOR]  # no two vectors are equal
    with _new_file(path) as (file, digest):
        with pq.ParquetWriter(file, schema, use_dictionary=others, write_statistics=others) as writer:
            for table in tables():
                writer.write_table(_cast(table, schema))
        return digest()


def _write_arrow(path: Path, schema: Any, tables: Tables, rows: int | None) -> str:
    pa = arrow()
    with _new_file(path) as (file, digest):
        with pa.ipc.new_file(file, schema) as writer:
            for table in tables():
                writer.write_table(_cast(table, schema))
        return digest()


def _write_jsonl(path: Path, schema: Any, tables: Tables, rows: int | None) -> str:
    with _new_file(path) as (file, digest):
        for table in tables():
            file.writelines(_lines(table))
        return digest()


def _lines(table: Any) -> Iterator[bytes]:
    if LINE in table.column_names:
        yield from table.column(LINE).to_pylist()
        return
    if VECTOR not in table.column_names:
        yield from (orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in table.to_pylist())
        return
    others = table.drop_columns([VECTOR]).to_pylist()
    for row, vector in zip(others, _matrix(table), strict=True):
        scale = {SCALE: row.pop(SCALE)} if SCALE in row else {}
        line = {**row, VECTOR: vector, **scale}
        yield orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


def _write_npy(path: Path, schema: Any, tables: Tables, rows: int | None) -> str:
    """Row i is row i of the input; those that failed are zeros among vectors, and NaN among scores."""
    assert rows is not None, "the shape comes first"
    is_vector = VECTOR in schema.names
    kind = schema.field(VECTOR if is_vector else SCORE).type
    dtype = np.dtype((kind.value_type if is_vector else kind).to_pandas_dtype()).newbyteorder("<")
    shape = (rows, kind.list_size) if is_vector else (rows,)
    blank = dtype.type(0 if is_vector else np.nan)
    done = 0
    with _new_file(path) as (file, digest):  # a name without .npy at its end
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
        np.lib.format.write_array_header_1_0(file, {**header, "shape": shape})
        for table in tables():  # a mapped array would stay in memory as it grows
            places = table.column(ROW).to_numpy()
            if len(places):
                _write_blank(file, np.full(shape[1:], blank, dtype), places[0] - done)
                block = np.full((places[-1] + 1 - places[0], *shape[1:]), blank, dtype)
                block[places - places[0]] = _matrix(table) if is_vector else table.column(SCORE).to_numpy()
                file.write(block.data)
                done = places[-1] + 1
        _write_blank(file, np.full(shape[1:], blank, dtype), rows - done)
        return digest()


def _write_blank(file: IO[bytes], row: NDArray[Any], count: int) -> None:
    """So many rows that failed."""
    for _ in range(count):
        file.write(row.tobytes())


def _write_lance(path: Path, schema: Any, tables: Tables, rows: int | None) -> None:
    try:
        import lancedb
    except ImportError:
        raise MissingExtra("Lance files need a package: pip install 'anydim[retrieval]'") from None
    pa = arrow()
    reader = pa.RecordBatchReader.from_batches(
        schema, (batch for table in tables() for batch in _cast(table, schema).to_batches())
    )
    folder = path.with_name(path.name + ".db")
    remove(folder)
    try:
        lancedb.connect(str(folder)).create_table("vectors", reader)
        (folder / "vectors.lance").rename(path)
    except RuntimeError as error:  # a full disk, say
        raise OSError(str(error).partition(", /")[0]) from error  # and where in its own source
    finally:
        remove(folder)


def _matrix(table: Any) -> NDArray[Any]:
    column = table.column(VECTOR).combine_chunks()
    size = column.type.list_size
    found: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, size)
    return found


WRITERS: Final[Mapping[str, Writer]] = MappingProxyType(
    {
        ".parquet": _write_parquet,
        ".jsonl": _write_jsonl,
        ".npy": _write_npy,
        ".arrow": _write_arrow,
        ".lance": _write_lance,
    }
)
"""By the end of an output's name."""

STREAMS: Final = (".parquet", ".jsonl", ".arrow")
"""Formats that are written from start to end without knowing how many rows come."""

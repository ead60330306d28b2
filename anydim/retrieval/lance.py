"""LanceStore: an index in a folder, through LanceDB.

Every write is one commit: a reader sees a document's old chunks or its new ones. Row ids are stable, so that a search
may fetch what it found before another process rewrote the files. int8 vectors are scanned here, since LanceDB has no
search over them; the other kinds are scanned by LanceDB. Source: https://lancedb.github.io/lancedb/.

Legend: N rows of a batch, d coarse dimension.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from filelock import FileLock, Timeout

from anydim.errors import ConfigError, MissingExtra, Unavailable
from anydim.retrieval.filters import Condition
from anydim.retrieval.layout import Layout, Written, kind_of, read_layout
from anydim.retrieval.store import Candidate, Row

_STABLE: Final = "new_table_enable_stable_row_ids"
_KEPT_VERSIONS: Final = datetime.timedelta(hours=1)  # readers of other processes may still be at them
_TEXTS: Final = ("document", "chunk", "text", "metadata", "digest")
_KEY: Final = "_rowid"


class LanceStore:
    """One table of a LanceDB folder, and a second one of a single row that holds its layout."""

    coarse_dtypes = ("int8", "float16", "float32", "binary")
    full_dtypes = ("int8", "float32", "float16")

    def __init__(self, folder: str, collection: str) -> None:
        """Open a folder; it is made when the index is.

        Raises:
            MissingExtra: lancedb is not installed.
            ConfigError: the folder cannot be opened.
        """
        lancedb = _lancedb()
        self._folder = Path(folder).expanduser()
        try:
            self._db = lancedb.connect(self._folder, read_consistency_interval=datetime.timedelta(0))
            names = set(self._db.list_tables().tables)
        except OSError as error:
            raise ConfigError(f"--db {folder} cannot be opened: {error}") from error
        self._name, self._notes = collection, f"{collection}_layout"
        self._names = names
        is_whole = {
            self._name,
            self._notes,
        } <= names  # the table is made first, and is empty where the other is missing
        self._table = self._db.open_table(collection) if is_whole else None
        body = self.read_layout()
        self._layout = read_layout(body) if body else None

    def read_layout(self) -> bytes | None:
        """See Store."""
        if self._table is None:
            return None
        return str(self._db.open_table(self._notes).search().to_list()[0]["body"]).encode()

    def write_layout(self, layout: Layout, body: bytes) -> None:
        """See Store."""
        import pyarrow as pa

        if self._table is None:
            self._table = self._db.create_table(
                self._name, schema=_schema(layout), storage_options={_STABLE: "true"}, mode=self._mode(self._name)
            )
        known = set(self._table.schema.names)
        new = [pa.field(*column) for column in _columns(layout) if column[0] not in known]
        if new:
            self._table.add_columns(new)
        self._db.create_table(self._notes, pa.table({"body": [body.decode()]}), mode=self._mode(self._notes))
        self._names.add(self._notes)
        self._layout = layout

    def digests(self, documents: Sequence[str]) -> dict[str, str]:
        """See Store."""
        if not documents:
            return {}
        rows = self._rows(f"chunk = 0 AND {_among('document', documents)}", ["document", "digest"])
        return {row["document"]: row["digest"] for row in rows.to_pylist()}

    def replace(self, rows: Sequence[Row], documents: Sequence[str]) -> None:
        """See Store."""
        table, data = self._open(), self._arrow(rows)
        if not self.digests(documents):
            table.add(data)
            return
        merge = table.merge_insert(["document", "chunk"]).when_matched_update_all().when_not_matched_insert_all()
        merge.when_not_matched_by_source_delete(_among("document", documents)).execute(data)

    def delete(self, documents: Sequence[str]) -> None:
        """See Store."""
        if documents:
            self._open().delete(_among("document", documents))

    def documents(self) -> Iterator[str]:
        """See Store."""
        for batch in self._open().search().where("chunk = 0").select(["document"]).to_batches():
            yield from batch.column("document").to_pylist()

    def count(self) -> int:
        """See Store."""
        return int(self._open().count_rows())

    def nearest(self, query_d: Written, count: int, conditions: Sequence[Condition]) -> list[Candidate]:
        """See Store."""
        layout, where = self._known_layout(), _sql(self._known_layout(), conditions)
        if layout.coarse_dtype == "int8":
            return self._scan_int8(query_d, count, where)
        is_binary = layout.coarse_dtype == "binary"
        search = self._open().search(query_d, vector_column_name="coarse").select(["_distance"]).with_row_id(True)
        search = search.distance_type("hamming" if is_binary else "cosine").limit(count)
        found = (search.where(where, prefilter=True) if where else search).to_arrow()
        most = layout.coarse_dim / 2 if is_binary else 1.0  # the distance of vectors that have nothing in common
        scores = 1 - found["_distance"].to_numpy() / most
        return [Candidate(key, float(score)) for key, score in zip(found[_KEY].to_pylist(), scores, strict=True)]

    def vectors(self, keys: Sequence[Any]) -> dict[Any, Written]:
        """See Store."""
        if not keys:
            return {}
        # In the order in which they lie, which reads neighbours at once.
        table = self._open().take_row_ids(sorted(keys)).select(["full"]).with_row_id().to_arrow()
        full_ND = _matrix(table.column("full").combine_chunks())
        return dict(zip(table.column(_KEY).to_pylist(), full_ND, strict=True))

    def fetch(self, keys: Sequence[Any]) -> dict[Any, Row]:
        """See Store."""
        if not keys:
            return {}
        table = self._open().take_row_ids(list(keys)).select([*_TEXTS]).with_row_id().to_arrow()
        return {row.pop(_KEY): _row(row) for row in table.select([_KEY, *_TEXTS]).to_pylist()}

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """See Store."""
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._folder / f"{self._name}.lock", timeout=0):
                yield
        except Timeout:
            raise Unavailable(f"another process is writing to {self._name} in {self._folder}") from None

    def finish(self) -> None:
        """See Store."""
        self._open().optimize(cleanup_older_than=_KEPT_VERSIONS)

    def close(self) -> None:
        """See Store."""
        self._table = None

    def _scan_int8(self, query_d: Written, count: int, where: str) -> list[Candidate]:
        """Cosine against every row, one batch after another, keeping the best."""
        search = self._open().search().select(["coarse"]).with_row_id(True)
        keys, scores = np.empty(0, np.uint64), np.empty(0, np.float32)
        for batch in (search.where(where) if where else search).to_batches():
            rows_Nd = _matrix(batch.column("coarse")).astype(np.float32)
            lengths_N = np.sqrt(np.einsum("nd,nd->n", rows_Nd, rows_Nd))
            cosines_N = rows_Nd @ query_d / np.maximum(lengths_N, 1e-30)
            keys = np.concatenate([keys, batch.column(_KEY).to_numpy()])
            scores = np.concatenate([scores, cosines_N])
            if len(scores) > count:
                best = np.argpartition(-scores, count - 1)[:count]
                keys, scores = keys[best], scores[best]
        order = np.lexsort((keys, -scores))
        return [Candidate(int(keys[place]), float(scores[place])) for place in order]

    def _mode(self, name: str) -> str:
        """How to make a table anew: LanceDB warns where something is overwritten that is not there."""
        return "overwrite" if name in self._names else "create"

    def _open(self) -> Any:
        if self._table is None:
            raise ConfigError(f"there is no index named {self._name} here")
        return self._table

    def _known_layout(self) -> Layout:
        if self._layout is None:
            raise ConfigError(f"there is no index named {self._name} here")
        return self._layout

    def _rows(self, where: str, names: list[str]) -> Any:
        return self._open().search().where(where).select(names).to_arrow()

    def _arrow(self, rows: Sequence[Row]) -> Any:
        import pyarrow as pa

        layout = self._known_layout()
        columns: dict[str, Any] = {
            "document": [row.document for row in rows],
            "chunk": [row.chunk for row in rows],
            "text": [row.text for row in rows],
            "metadata": [msgspec.json.encode(dict(row.metadata)).decode() for row in rows],
            "digest": [row.digest for row in rows],
            "coarse": _fixed([row.coarse for row in rows]),
            "full": _fixed([row.full for row in rows]),
        }
        for place, (name, kind) in enumerate(layout.fields.items()):
            columns[f"field_{place}"] = [_filterable(row.metadata.get(name), kind) for row in rows]
        return pa.table(columns, schema=_schema(layout))


def _lancedb() -> Any:
    try:
        import lancedb
    except ImportError:
        raise MissingExtra("LanceDB is not installed: pip install 'anydim[retrieval]'") from None
    return lancedb


def _columns(layout: Layout) -> list[tuple[str, Any]]:
    """Column names with their Arrow types."""
    import pyarrow as pa

    kinds = {"text": pa.string(), "number": pa.float64(), "boolean": pa.bool_()}
    packed = layout.coarse_dtype == "binary"
    coarse = pa.uint8() if packed else pa.from_numpy_dtype(layout.coarse_dtype)
    return [
        ("document", pa.string()),
        ("chunk", pa.int32()),
        ("text", pa.string()),
        ("metadata", pa.string()),
        ("digest", pa.string()),
        ("coarse", pa.list_(coarse, layout.coarse_dim // 8 if packed else layout.coarse_dim)),
        ("full", pa.list_(pa.from_numpy_dtype(layout.dtype), layout.dim)),
        *((f"field_{place}", kinds[kind]) for place, kind in enumerate(layout.fields.values())),
    ]


def _schema(layout: Layout) -> Any:
    import pyarrow as pa

    return pa.schema(_columns(layout))


def _fixed(vectors: Sequence[Written]) -> Any:
    """Vectors as one Arrow column without copying each."""
    import pyarrow as pa

    matrix = np.stack(vectors)
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])


def _matrix(column: Any) -> Written:
    """A column of vectors as (N, components)."""
    values: Written = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(column), -1) if len(column) else values.reshape(0, 0)


def _row(row: Mapping[str, Any]) -> Row:
    metadata = msgspec.json.decode(row["metadata"])
    return Row(**{**row, "metadata": metadata}, coarse=np.empty(0), full=np.empty(0))


def _filterable(value: Any, kind: str) -> Any:
    return value if kind_of(value) == kind else None


def _sql(layout: Layout, conditions: Sequence[Condition]) -> str:
    """Conditions as DataFusion's SQL; columns stand for fields by their place, so that any name will do."""
    places = {name: place for place, name in enumerate(layout.fields)}
    return " AND ".join(_comparison(f"field_{places[each.field]}", each) for each in conditions)


def _comparison(column: str, condition: Condition) -> str:
    if condition.operator == "in":
        return f"{column} IN ({', '.join(map(_literal, condition.value))})"
    return f"{column} {condition.operator} {_literal(condition.value)}"


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return repr(float(value))


def _among(column: str, values: Sequence[str]) -> str:
    return f"{column} IN ({', '.join(map(_literal, values))})"

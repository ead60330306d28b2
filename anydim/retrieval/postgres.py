"""PostgresStore: an index in PostgreSQL with pgvector, through psycopg and pgvector's own client.

The first stage is an exact scan of a narrow column: the wide one and the text are stored beside the row (TOAST), so
that the scan does not read them. Binary vectors are PostgreSQL's own bit strings. Source:
https://github.com/pgvector/pgvector.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, LiteralString

import msgspec
import numpy as np

from anydim.errors import ConfigError, MissingExtra, Unavailable
from anydim.retrieval.filters import Condition
from anydim.retrieval.layout import Layout, Written, read_layout
from anydim.retrieval.store import Candidate, Row, without_password

_PAGE: Final = 1000
_PATIENCE: Final = 10.0
_INLINE: Final = 256  # bytes of a row beyond which its widest columns are stored elsewhere
_JSON_KINDS: Final = MappingProxyType({"text": "string", "number": "number", "boolean": "boolean"})
_LAYOUTS: Final = "CREATE TABLE IF NOT EXISTS anydim_layouts (collection text PRIMARY KEY, body text NOT NULL)"

_NOTE: Final = "INSERT INTO anydim_layouts VALUES (%s, %s) ON CONFLICT (collection) DO UPDATE SET body = EXCLUDED.body"


class PostgresStore:
    """A table of one database, and a row in the table of layouts."""

    coarse_dtypes = ("float32", "binary")
    full_dtypes = ("float32", "float16")

    def __init__(self, address: str, collection: str) -> None:
        """Connect.

        Raises:
            MissingExtra: psycopg or pgvector is not installed.
            Unavailable: nobody answers, or the database refuses.
        """
        self._address = without_password(address)
        self._name = collection
        self._psycopg, pool, self._register = _clients()
        self._table = self._psycopg.sql.Identifier(f"anydim_{collection}")
        self._pool = pool(address, min_size=1, max_size=8, open=False, configure=self._configure, timeout=_PATIENCE)
        with self._clear_errors():
            # One plain connection first: a pool only says that it waited in vain, not what was wrong.
            with self._psycopg.connect(address, connect_timeout=int(_PATIENCE)):
                pass
            self._pool.open(wait=True, timeout=_PATIENCE)
        body = self.read_layout()
        self._layout = read_layout(body) if body else None

    def read_layout(self) -> bytes | None:
        """See Store."""
        if not self._all("SELECT to_regclass('anydim_layouts') IS NOT NULL AS made")[0][0]:
            return None
        rows = self._all("SELECT body FROM anydim_layouts WHERE collection = %s", [self._name])
        return str(rows[0][0]).encode() if rows else None

    def write_layout(self, layout: Layout, body: bytes) -> None:
        """See Store."""
        with self._clear_errors(), self._pool.connection() as connection:
            connection.execute(_LAYOUTS)
            connection.execute(self._sql(_columns(layout)))
            connection.execute(_NOTE, [self._name, body.decode()])
        self._layout = layout

    def digests(self, documents: Sequence[str]) -> dict[str, str]:
        """See Store."""
        words: LiteralString = "SELECT document, digest FROM {table} WHERE chunk = 0 AND document = ANY(%s)"
        return dict(self._all(words, [list(documents)]))

    def replace(self, rows: Sequence[Row], documents: Sequence[str]) -> None:
        """See Store."""
        columns = "(document, chunk, body, metadata, digest, coarse, full_vector)"
        with self._clear_errors(), self._pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(self._sql("DELETE FROM {table} WHERE document = ANY(%s)"), [list(documents)])
            words = self._sql(f"INSERT INTO {{table}} {columns} VALUES (%s, %s, %s, %s::jsonb, %s, %s, %s)")
            cursor.executemany(words, [self._values(row) for row in rows])

    def delete(self, documents: Sequence[str]) -> None:
        """See Store."""
        with self._clear_errors(), self._pool.connection() as connection:
            connection.execute(self._sql("DELETE FROM {table} WHERE document = ANY(%s)"), [list(documents)])

    def documents(self) -> Iterator[str]:
        """See Store."""
        last = ""
        while True:
            words: LiteralString = (
                "SELECT document FROM {table} WHERE chunk = 0 AND document > %s ORDER BY document LIMIT %s"
            )
            rows = self._all(words, [last, _PAGE])
            yield from (row[0] for row in rows)
            if len(rows) < _PAGE:
                return
            last = rows[-1][0]

    def count(self) -> int:
        """See Store."""
        return int(self._all("SELECT count(*) FROM {table}")[0][0])

    def nearest(self, query_d: Written, count: int, conditions: Sequence[Condition]) -> list[Candidate]:
        """See Store."""
        layout = self._known_layout()
        where, values = _where(layout, conditions)
        is_binary = layout.coarse_dtype == "binary"
        differing = f"bit_count(coarse # %s::bit({layout.coarse_dim})) / {layout.coarse_dim / 2}"
        similarity = f"1 - {differing if is_binary else '(coarse <=> %s)'}"
        query = _bits(query_d) if is_binary else query_d
        words = f"SELECT id, {similarity} AS score FROM {{table}} WHERE {where} ORDER BY score DESC, id LIMIT %s"
        return [Candidate(key, float(score)) for key, score in self._all(words, [query, *values, count])]

    def vectors(self, keys: Sequence[Any]) -> dict[Any, Written]:
        """See Store."""
        words: LiteralString = "SELECT id, full_vector FROM {table} WHERE id = ANY(%s)"
        return {key: full.to_numpy() for key, full in self._all(words, [list(keys)])}

    def fetch(self, keys: Sequence[Any]) -> dict[Any, Row]:
        """See Store."""
        words: LiteralString = "SELECT id, document, chunk, body, metadata, digest FROM {table} WHERE id = ANY(%s)"
        return {row[0]: _row(*row[1:]) for row in self._all(words, [list(keys)])}

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """See Store: an advisory lock, which ends with its connection."""
        with contextlib.ExitStack() as stack:
            with self._clear_errors():
                connection = stack.enter_context(self._psycopg.connect(self._pool.conninfo, autocommit=True))
                words = "SELECT pg_try_advisory_lock(hashtext(%s))"
                is_ours = connection.execute(words, [f"anydim_{self._name}"]).fetchone()[0]
            if not is_ours:
                raise Unavailable(f"another process is writing to {self._name} at {self._address}")
            yield

    def finish(self) -> None:
        """See Store."""
        with self._clear_errors(), self._psycopg.connect(self._pool.conninfo, autocommit=True) as connection:
            connection.execute(self._sql("VACUUM ANALYZE {table}"))

    def close(self) -> None:
        """See Store."""
        self._pool.close()

    def _configure(self, connection: Any) -> None:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        connection.commit()
        self._register(connection)

    def _all(self, words: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._clear_errors(), self._pool.connection() as connection:
            rows: list[Any] = connection.execute(self._sql(words), values).fetchall()
        return rows

    def _sql(self, words: str) -> Any:
        return self._psycopg.sql.SQL(words).format(table=self._table)

    def _values(self, row: Row) -> list[Any]:
        is_binary = self._known_layout().coarse_dtype == "binary"
        metadata = msgspec.json.encode(dict(row.metadata)).decode()
        coarse = _bits(row.coarse) if is_binary else row.coarse
        return [row.document, row.chunk, row.text, metadata, row.digest, coarse, row.full.astype(np.float32)]

    def _known_layout(self) -> Layout:
        if self._layout is None:
            raise ConfigError(f"there is no index named {self._name} here")
        return self._layout

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """Say what the database said, without the address's password."""
        try:
            yield
        except self._psycopg.OperationalError as error:
            raise Unavailable(f"{self._address} does not answer: {_first_line(error)}") from None
        except self._psycopg.Error as error:
            raise Unavailable(f"{self._address} refused: {_first_line(error)}") from None


def _clients() -> tuple[Any, Any, Any]:
    try:
        import psycopg
        import psycopg.sql
        from pgvector.psycopg import register_vector
        from psycopg_pool import ConnectionPool
    except ImportError:
        raise MissingExtra("PostgreSQL needs its client: pip install 'anydim[postgres]'") from None
    return psycopg, ConnectionPool, register_vector


def _columns(layout: Layout) -> str:
    kind = "bit" if layout.coarse_dtype == "binary" else "vector"
    return (
        "CREATE TABLE IF NOT EXISTS {table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
        "document text NOT NULL, chunk int NOT NULL, body text STORAGE EXTENDED NOT NULL, metadata jsonb NOT NULL, "
        f"digest text NOT NULL, coarse {kind}({layout.coarse_dim}) STORAGE PLAIN NOT NULL, "
        f"full_vector vector({layout.dim}) STORAGE EXTERNAL NOT NULL, UNIQUE (document, chunk)) "
        f"WITH (toast_tuple_target = {_INLINE})"
    )


def _where(layout: Layout, conditions: Sequence[Condition]) -> tuple[str, list[Any]]:
    """SQL with places for values, and the values; comparisons are jsonb's own, between values of the field's kind."""
    words: list[str] = ["TRUE"]
    values: list[Any] = []
    for condition in conditions:
        kind = _JSON_KINDS[layout.fields[condition.field]]
        words.append("jsonb_typeof(metadata -> %s::text) = %s")
        values += [condition.field, kind]
        if condition.operator == "in":
            words.append("metadata -> %s::text = ANY(%s::jsonb[])")
            values += [condition.field, [_json(value) for value in condition.value]]
        else:
            words.append(f"metadata -> %s::text {condition.operator} %s::jsonb")
            values += [condition.field, _json(condition.value)]
    return " AND ".join(words), values


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _bits(packed: Written) -> str:
    return "".join(map(str, np.unpackbits(packed).tolist()))


def _row(document: str, chunk: int, body: str, metadata: Mapping[str, Any], digest: str) -> Row:
    return Row(
        document=document,
        chunk=chunk,
        text=body,
        metadata=metadata,
        digest=digest,
        coarse=np.empty(0),
        full=np.empty(0),
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__

"""QdrantStore: an index in Qdrant, on a server or in a folder, through Qdrant's own client.

Each point has two named vectors, so that both stages see the same points. A server searches the small ones through its
own index and, for int8 and binary, its own quantisation; in a folder the client compares them one by one in float32.
Source: https://qdrant.tech/documentation/.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from anydim.errors import ConfigError, MissingExtra, Unavailable
from anydim.retrieval.filters import Condition
from anydim.retrieval.layout import Layout, Written, kind_of, read_layout
from anydim.retrieval.store import Candidate, Row, without_password

KEY_VARIABLE: Final = "QDRANT_API_KEY"

_PAGE: Final = 1000
_FOLDER: Final = "qdrant:"
_NOTE: Final = 1  # the id of the point that holds the layout


class QdrantStore:
    """Two collections of one Qdrant: the chunks, and the layout."""

    coarse_dtypes = ("float32", "float16", "int8", "binary")
    full_dtypes = ("float32", "float16")

    def __init__(self, address: str, collection: str) -> None:
        """Connect; the key of a server is read from ``QDRANT_API_KEY``.

        Raises:
            MissingExtra: qdrant-client is not installed.
            Unavailable: nobody answers, or the folder is in use.
        """
        qdrant, self._models = _clients()
        self._address = without_password(address)
        self._is_local = address.startswith(_FOLDER) and "://" not in address
        self._name, self._notes = collection, f"{collection}_layout"
        with self._clear_errors():
            if self._is_local:
                self._client = qdrant(path=str(Path(address.removeprefix(_FOLDER)).expanduser()))
            else:
                url, key = address.removeprefix("qdrant+"), os.environ.get(KEY_VARIABLE)
                self._client = qdrant(url=url, api_key=key, check_compatibility=False)
            body = self.read_layout()
        self._layout = read_layout(body) if body else None

    def read_layout(self) -> bytes | None:
        """See Store."""
        with self._clear_errors():
            if not self._client.collection_exists(self._notes):
                return None
            points = self._client.retrieve(self._notes, [_NOTE])
        return str(points[0].payload["body"]).encode() if points else None

    def write_layout(self, layout: Layout, body: bytes) -> None:
        """See Store."""
        models = self._models
        with self._clear_errors():
            if not self._client.collection_exists(self._name):
                self._client.create_collection(self._name, vectors_config=self._vectors(layout))
                self._index_payload({"document": "text", "chunk": "place"})
            if not self._client.collection_exists(self._notes):
                size = models.VectorParams(size=1, distance=models.Distance.DOT)
                self._client.create_collection(self._notes, vectors_config=size)
            self._index_payload({f"field_{place}": kind for place, kind in enumerate(layout.fields.values())})
            note = models.PointStruct(id=_NOTE, vector=[0.0], payload={"body": body.decode()})
            self._client.upsert(self._notes, [note], wait=True)
        self._layout = layout

    def digests(self, documents: Sequence[str]) -> dict[str, str]:
        """See Store."""
        conditions = [self._among(documents), self._at_chunk(0)]
        points = self._scroll(conditions, len(documents), ["document", "digest"])[0]
        return {point.payload["document"]: point.payload["digest"] for point in points}

    def replace(self, rows: Sequence[Row], documents: Sequence[str]) -> None:
        """See Store."""
        old = self.digests(documents)
        counts = dict.fromkeys(old, 0)
        for row in rows:
            if row.document in counts:
                counts[row.document] += 1
        with self._clear_errors():
            if rows:
                self._client.upsert(self._name, [self._point(row) for row in rows], wait=True)
            for document, count in counts.items():
                rest = [self._among([document]), self._field("chunk", range=self._models.Range(gte=count))]
                self._client.delete(self._name, self._models.FilterSelector(filter=self._all_of(rest)), wait=True)

    def delete(self, documents: Sequence[str]) -> None:
        """See Store."""
        if documents:
            chosen = self._models.FilterSelector(filter=self._all_of([self._among(documents)]))
            with self._clear_errors():
                self._client.delete(self._name, chosen, wait=True)

    def documents(self) -> Iterator[str]:
        """See Store."""
        place = None
        while True:
            points, place = self._scroll([self._at_chunk(0)], _PAGE, ["document"], place)
            yield from (point.payload["document"] for point in points)
            if place is None:
                return

    def count(self) -> int:
        """See Store."""
        with self._clear_errors():
            return int(self._client.count(self._name, exact=True).count)

    def nearest(self, query_d: Written, count: int, conditions: Sequence[Condition]) -> list[Candidate]:
        """See Store."""
        layout = self._known_layout()
        query = _signs(query_d) if layout.coarse_dtype == "binary" else query_d
        with self._clear_errors():
            found = self._client.query_points(
                self._name,
                query=query.astype(np.float32).tolist(),
                using="coarse",
                query_filter=self._filter(layout, conditions),
                limit=count,
                with_payload=False,
                search_params=None if self._is_local else self._unscored(),
            )
        return [Candidate(point.id, float(point.score)) for point in found.points]

    def vectors(self, keys: Sequence[Any]) -> dict[Any, Written]:
        """See Store."""
        with self._clear_errors():
            points = self._client.retrieve(self._name, list(keys), with_payload=False, with_vectors=["full"])
        return {point.id: np.asarray(point.vector["full"], np.float32) for point in points}

    def fetch(self, keys: Sequence[Any]) -> dict[Any, Row]:
        """See Store."""
        with self._clear_errors():
            points = self._client.retrieve(self._name, list(keys), with_payload=True, with_vectors=False)
        return {point.id: _row(point.payload) for point in points}

    def writing(self) -> contextlib.AbstractContextManager[None]:
        """See Store: a chunk has the same id whoever writes it, so that writers do no harm."""
        return contextlib.nullcontext()

    def finish(self) -> None:
        """See Store: Qdrant keeps itself in order."""

    def close(self) -> None:
        """See Store."""
        self._client.close()

    def _vectors(self, layout: Layout) -> Mapping[str, Any]:
        models = self._models
        quantization = {
            "int8": models.ScalarQuantization(
                scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
            ),
            "binary": models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
        }.get(layout.coarse_dtype)
        narrow = models.Datatype.FLOAT16
        return {
            "coarse": models.VectorParams(
                size=layout.coarse_dim,
                distance=models.Distance.COSINE,
                datatype=narrow if layout.coarse_dtype == "float16" else None,
                quantization_config=quantization,
                on_disk=quantization is not None,
            ),
            "full": models.VectorParams(
                size=layout.dim,
                distance=models.Distance.COSINE,
                datatype=narrow if layout.dtype == "float16" else None,
                hnsw_config=models.HnswConfigDiff(m=0),  # fetched by id, never searched
                on_disk=True,
            ),
        }

    def _unscored(self) -> Any:
        """Without rescoring: the second stage does that, with more components."""
        return self._models.SearchParams(quantization=self._models.QuantizationSearchParams(rescore=False))

    def _index_payload(self, kinds: Mapping[str, str]) -> None:
        schemas = {"text": "keyword", "number": "float", "boolean": "bool", "place": "integer"}
        for name, kind in kinds.items():
            if not self._is_local:  # there it would only warn
                self._client.create_payload_index(self._name, name, field_schema=schemas[kind], wait=True)

    def _point(self, row: Row) -> Any:
        layout = self._known_layout()
        coarse = _signs(row.coarse) if layout.coarse_dtype == "binary" else row.coarse
        payload = {
            "document": row.document,
            "chunk": row.chunk,
            "text": row.text,
            "metadata": dict(row.metadata),
            "digest": row.digest,
        }
        for place, (name, kind) in enumerate(layout.fields.items()):
            if kind_of(row.metadata.get(name)) == kind:
                payload[f"field_{place}"] = row.metadata[name]
        vectors = {"coarse": coarse.astype(np.float32).tolist(), "full": row.full.astype(np.float32).tolist()}
        key = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{row.chunk}#{row.document}"))
        return self._models.PointStruct(id=key, vector=vectors, payload=payload)

    def _scroll(self, conditions: list[Any], count: int, names: list[str], place: Any = None) -> Any:
        with self._clear_errors():
            return self._client.scroll(
                self._name,
                scroll_filter=self._all_of(conditions),
                limit=max(count, 1),
                offset=place,
                with_payload=names,
            )

    def _filter(self, layout: Layout, conditions: Sequence[Condition]) -> Any:
        places = {name: place for place, name in enumerate(layout.fields)}
        return self._all_of([self._condition(f"field_{places[each.field]}", each) for each in conditions])

    def _condition(self, key: str, condition: Condition) -> Any:
        models, value = self._models, condition.value
        if condition.operator == "=":
            return self._equal(key, value)
        if condition.operator == "in":
            return models.Filter(should=[self._equal(key, each) for each in value])
        if condition.operator == "!=":
            is_empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
            return models.Filter(must_not=[self._equal(key, value), is_empty])
        word = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}[condition.operator]
        return self._field(key, range=models.Range(**{word: value}))

    def _equal(self, key: str, value: Any) -> Any:
        if kind_of(value) == "number":
            return self._field(key, range=self._models.Range(gte=value, lte=value))
        return self._field(key, match=self._models.MatchValue(value=value))

    def _among(self, documents: Sequence[str]) -> Any:
        return self._field("document", match=self._models.MatchAny(any=list(documents)))

    def _at_chunk(self, place: int) -> Any:
        return self._field("chunk", match=self._models.MatchValue(value=place))

    def _field(self, key: str, **test: Any) -> Any:
        return self._models.FieldCondition(key=key, **test)

    def _all_of(self, conditions: Sequence[Any]) -> Any:
        return self._models.Filter(must=list(conditions))

    def _known_layout(self) -> Layout:
        if self._layout is None:
            raise ConfigError(f"there is no index named {self._name} here")
        return self._layout

    @contextlib.contextmanager
    def _clear_errors(self) -> Iterator[None]:
        """Say what Qdrant said, without the address's password."""
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ApiException

        try:
            yield
        except (ApiException, QdrantException, OSError, RuntimeError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise Unavailable(f"{self._address} does not answer: {lines[0][:200]}") from None


def _clients() -> tuple[Any, Any]:
    try:
        from qdrant_client import QdrantClient, models
    except ImportError:
        raise MissingExtra("Qdrant needs its client: pip install 'anydim[qdrant]'") from None
    return QdrantClient, models


def _signs(packed: Written) -> Written:
    """Packed bits as components of 1 and -1, whose cosine counts the bits that differ."""
    return np.unpackbits(packed).astype(np.float32) * 2 - 1


def _row(payload: Mapping[str, Any]) -> Row:
    return Row(
        document=payload["document"],
        chunk=payload["chunk"],
        text=payload["text"],
        metadata=payload["metadata"],
        digest=payload["digest"],
        coarse=np.empty(0),
        full=np.empty(0),
    )

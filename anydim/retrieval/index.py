"""Index: the library's way to make documents searchable and to search them, with a model in this process.

It composes documents, chunks, an Embedder, a Store and the stages. Work that was stopped goes on where it was: what is
in the index with the same text and metadata is not embedded again.

Legend: D full dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from anydim.config import load_settings
from anydim.errors import ConfigError, InvalidRequest
from anydim.intake.request import InputType
from anydim.retrieval.chunks import chunk_text
from anydim.retrieval.documents import Document, Entry, Refusal, checked
from anydim.retrieval.filters import Where
from anydim.retrieval.layout import PROBE, Layout, check_model, check_probe, probe_of, read_layout
from anydim.retrieval.stages import Score, SearchResult, check_query, find, rerank
from anydim.retrieval.store import Row, open_store, without_password
from anydim.types import Float32Array

if TYPE_CHECKING:
    from anydim.embedder import Embedder

_BATCH: Final = 128  # documents in one write
_LONG: Final = 400_000  # characters after which a batch is full, however few documents it has
_CHUNK: Final = 256  # tokens, where the model reads as many
_SPECIAL: Final = 8  # tokens kept free beside a chunk, since cut text may be tokenised a little differently

Progress = Callable[[int], None]


@dataclass(slots=True)
class Report:
    """What an indexing run did, in documents.

    Attributes:
        added: were not there.
        updated: were there with another text or other metadata.
        unchanged: were there as they are.
        removed: were deleted.
        chunks: that were written.
        refusals: what could not become a document. Where there are any, nothing is pruned.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    chunks: int = 0
    refusals: list[Refusal] = field(default_factory=list)


class Index:
    """Documents in a database, found by meaning.

    Use it as a context manager, or call ``close``. The Embedder stays its owner's.
    """

    def __init__(self, db: str, embedder: Embedder, **settings: Any) -> None:
        """Open an index, or get ready to make it with the first document.

        Args:
            db: a folder for LanceDB, ``postgresql://...``, ``qdrant+http://HOST:PORT`` or ``qdrant:FOLDER``.
            embedder: the model; an index remembers its name and refuses another.
            settings: settings of an index by name, such as ``coarse_dim``; see docs/config.md.

        Raises:
            ConfigError: a setting is unknown, wrong, or not what the index was made with.
            MissingExtra: the database's client is not installed.
            Unavailable: the database does not answer.
        """
        wanted = load_settings({**settings, "db": db}, {}).index
        self._embedder = embedder
        self.settings = wanted
        self.store = open_store(db, wanted.collection)
        body = self.store.read_layout()
        self._written = body
        self.layout = self._new_layout() if body is None else self._known_layout(body, set(settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self.store.close()

    def add(self, documents: Iterable[Entry], *, prune: bool = False, progress: Progress = lambda done: None) -> Report:
        """Put documents in; those of the same id replace the old ones, and those that have not changed cost nothing.

        Args:
            documents: Documents; Refusals among them are only reported.
            prune: afterwards remove the documents of the index that were not among these; not done after a refusal.
            progress: called with the number of documents done so far.

        Returns:
            What was done. A document that cannot be taken is among the refusals.

        Raises:
            ComputeFailed, Unavailable: the model or the database failed; what was written stays, and the same call
                goes on from there.
        """
        with self.store.writing():
            return self._add(documents, prune, progress)

    def _add(self, documents: Iterable[Entry], prune: bool, progress: Progress) -> Report:
        """Embed one batch while the one before is being written."""
        report = Report()
        seen: set[str] = set()
        written: Future[None] | None = None
        with ThreadPoolExecutor(1) as writer:
            for batch in _batches(documents):
                rows, stale = self._rows_of(self._accepted(batch, seen, report), report)
                if written is not None:
                    written.result()
                written = writer.submit(self._write, self.layout, rows, stale) if stale else None
                progress(len(seen) + len(report.refusals))
            if written is not None:
                written.result()
        if prune and not report.refusals:  # a document that is broken today must not be lost
            report.removed = self._prune(seen)
        if self._written is not None and (report.chunks or report.removed):
            self.store.finish()
        return report

    def delete(self, documents: Sequence[str]) -> int:
        """Remove documents by id; how many there were."""
        if self._written is None:
            return 0
        there = list(self.store.digests(documents)) if documents else []
        with self.store.writing():
            self.store.delete(there)
        return len(there)

    def count(self) -> int:
        """How many chunks the index holds."""
        return 0 if self._written is None else self.store.count()

    def search(
        self,
        query: str,
        *,
        top_k: int | None = None,
        candidates: int | None = None,
        where: Where | None = None,
        instruction: str | None = None,
        per_document: bool = False,
        score: Score | None = None,
        score_name: str = "reranker",
    ) -> SearchResult:
        """Find the chunks that answer a query.

        Args:
            query: a text.
            top_k: how many hits.
            candidates: how many chunks the coarse stage hands on.
            where: conditions on metadata, see ``conditions_of``.
            instruction: the task, for models that were trained with instructions.
            per_document: at most one hit a document.
            score: a cross-encoder that judges the best ``rerank_candidates`` again.
            score_name: what the rerank stage calls it.

        Raises:
            InvalidRequest: the query is empty, or a condition does not fit the index.
            ConfigError: there is no such index.
        """
        settings = replace(
            self.settings,
            top_k=top_k or self.settings.top_k,
            candidates=candidates or self.settings.candidates,
        )
        if self._written is None:
            raise ConfigError(f"there is no index named {settings.collection} at {without_password(settings.db or '')}")
        query_D = self._embed_query(query, instruction)
        found = find(self.store, self.layout, query_D, settings, where, per_document, score is not None)
        if score is None:
            return found
        hits, stage = rerank(score, score_name, query, found.hits, settings.top_k)
        return SearchResult(hits, [*found.stages, stage])

    def _embed_query(self, query: str, instruction: str | None) -> Float32Array:
        check_query(query)
        vector: Float32Array = self._embedder.embed(
            query,
            output_dim=self.layout.dim,
            instruction=instruction,
            input_type=None if instruction else "query",
            truncate="end",
        )
        return vector

    def _new_layout(self) -> Layout:
        rule, settings = self._embedder.intake.rule, self.settings
        dim = rule.width if settings.index_dim == "native" else int(settings.index_dim)
        for flag, value in (("--coarse-dim", settings.coarse_dim), ("--index-dim", dim)):
            if not rule.allows(value):
                raise ConfigError(f"{flag} must be {rule.allowed}, got {value}")
        if settings.coarse_dim > dim:
            raise ConfigError(f"--coarse-dim {settings.coarse_dim} is more than --index-dim {dim}")
        return Layout(
            model=self._embedder.card.name,
            dim=dim,
            dtype=_dtype("--index-dtype", settings.index_dtype, self.store.full_dtypes),
            coarse_dim=settings.coarse_dim,
            coarse_dtype=_dtype("--coarse-dtype", settings.coarse_dtype, self.store.coarse_dtypes),
            chunk_tokens=self._chunk_tokens(),
            chunk_overlap=settings.chunk_overlap,
            probe=probe_of(self._embed([PROBE])[0], settings.coarse_dim),
        )

    def _chunk_tokens(self) -> int:
        """As set, as long as a chunk with prompt and special tokens fits into the model."""
        most = self._embedder.intake.room(InputType.DOCUMENT) - _SPECIAL
        size, overlap = self.settings.chunk_tokens or min(_CHUNK, most), self.settings.chunk_overlap
        if size > most:
            raise ConfigError(f"--chunk-tokens must be at most {most} for {self._embedder.card.name}, got {size}")
        if overlap * 2 > size:
            raise ConfigError(f"--chunk-overlap must be at most half of --chunk-tokens {size}, got {overlap}")
        return size

    def _known_layout(self, body: bytes, given: set[str]) -> Layout:
        layout = read_layout(body)
        check_model(layout, self._embedder.card)
        for setting, made in (
            ("coarse_dim", layout.coarse_dim),
            ("coarse_dtype", layout.coarse_dtype),
            ("index_dim", layout.dim),
            ("index_dtype", layout.dtype),
            ("chunk_tokens", layout.chunk_tokens),
            ("chunk_overlap", layout.chunk_overlap),
        ):
            asked = getattr(self.settings, setting)
            if setting in given and asked != made and asked not in (None, "auto", "native"):
                flag = "--" + setting.replace("_", "-")
                raise ConfigError(
                    f"the index was made with {flag} {made}, got {asked}; --collection names a second one"
                )
        check_probe(layout, self._embed([PROBE])[0])
        return layout

    def _accepted(self, batch: Sequence[Entry], seen: set[str], report: Report) -> dict[str, Document]:
        """The documents of a batch by id, their fields known to the layout; the others go among the refusals."""
        accepted: dict[str, Document] = {}
        for given in batch:
            found = checked(given) if isinstance(given, Document) else given
            if isinstance(found, Document) and found.id in seen:
                found = Refusal(found.id[:200], "has an id that was there before in this run")
            if isinstance(found, Document):
                try:
                    self.layout = self.layout.with_fields(found.metadata)
                except InvalidRequest as error:
                    found = Refusal(found.id[:200], error.message)
            if isinstance(found, Refusal):
                report.refusals.append(found)
            else:
                seen.add(found.id)
                accepted[found.id] = found
        return accepted

    def _rows_of(self, documents: Mapping[str, Document], report: Report) -> tuple[list[Row], list[str]]:
        """Rows of the documents that are new or have changed, and the ids of these."""
        known = {} if self._written is None or not documents else self.store.digests(list(documents))
        stale = [key for key, document in documents.items() if known.get(key) != document.digest]
        chunks = [(documents[key], *chunk) for key in stale for chunk in enumerate(self._chunks(documents[key]))]
        rows = self._embedded(chunks) if chunks else []
        changed = sum(key in known for key in stale)
        report.added += len(stale) - changed
        report.updated += changed
        report.unchanged += len(documents) - len(stale)
        report.chunks += len(rows)
        return rows, stale

    def _chunks(self, document: Document) -> Iterator[str]:
        spans_of = self._embedder.intake.tokenizer.spans
        return chunk_text(document.text, spans_of, self.layout.chunk_tokens, self.layout.chunk_overlap)

    def _embedded(self, chunks: Sequence[tuple[Document, int, str]]) -> list[Row]:
        vectors_ND = self._embed([text for _, _, text in chunks])[:, : self.layout.dim]
        coarse_Nd, full_ND = self.layout.coarse(vectors_ND), self.layout.full(vectors_ND)
        return [
            Row(
                document=document.id,
                chunk=place,
                text=text,
                metadata=document.metadata,
                digest=document.digest,
                coarse=coarse_Nd[number],
                full=full_ND[number],
            )
            for number, (document, place, text) in enumerate(chunks)
        ]

    def _embed(self, texts: Sequence[str]) -> Float32Array:
        """Full vectors of documents: one forward a text, whatever dimensions are cut from it."""
        vectors: Float32Array = self._embedder.embed(
            texts,
            output_dim=self._embedder.card.width,
            input_type="document",
            truncate="end",
            show_progress=False,
        )
        return vectors

    def _write(self, layout: Layout, rows: Sequence[Row], documents: Sequence[str]) -> None:
        body = msgspec.json.encode(layout)
        if body != self._written:
            self.store.write_layout(layout, body)
            self._written = body
        self.store.replace(rows, documents)

    def _prune(self, seen: set[str]) -> int:
        if self._written is None:
            return 0
        gone = [document for document in self.store.documents() if document not in seen]
        for start in range(0, len(gone), _BATCH):
            self.store.delete(gone[start : start + _BATCH])
        return len(gone)


def _dtype(flag: str, wanted: str, known: Sequence[str]) -> Any:
    if wanted == "auto":
        return known[0]
    if wanted not in known:
        raise ConfigError(f"{flag} must be auto or one of {', '.join(known)} in this database, got {wanted}")
    return wanted


def _batches(documents: Iterable[Entry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text) if isinstance(document, Document) else 0
        if len(batch) == _BATCH or size > _LONG:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch

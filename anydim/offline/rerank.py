"""Rerank: what is asked for by `anydim rerank`, and its work on a shard: a query and documents a record.

A row of the output is one pair: the number of its input row, which of that row's documents it is, where that one stands
among them, and its score. It knows a Reranker and records; it knows no files, and not which shard comes next.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np

from anydim.errors import InvalidRequest
from anydim.intake.request import ScoreRequest, Truncate
from anydim.offline.job import Job
from anydim.offline.records import Fields, Reading, Record, text_of
from anydim.offline.shard_work import TERMS, Made, Shard, facts_of, one_by_one, shard_of
from anydim.offline.shards import Failure, encode_shard
from anydim.offline.writers import ROW, SCORE, arrow
from anydim.reranker import Reranker
from anydim.types import Item, Output


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryAndDocuments:
    """A Take of a query and behind it one document, or several.

    Attributes:
        query: the query of all rows; None where each has its own.
        query_column: the field with a row's query.
        document_column: the field with a row's document.
        documents_column: the field with a list of documents, of rows that have no document.
    """

    query: str | None = None
    query_column: str = "query"
    document_column: str = "document"
    documents_column: str = "documents"

    @property
    def columns(self) -> Sequence[str]:
        """See Take."""
        own = () if self.query is not None else (self.query_column,)
        return (*own, self.documents_column, self.document_column)

    def facts(self) -> dict[str, Any]:
        """See Take."""
        return asdict(self)

    def __call__(self, fields: Fields) -> tuple[str, ...]:
        """See Take."""
        query = self.query if self.query is not None else text_of(fields.get(self.query_column), self.query_column)
        documents = fields.get(self.documents_column)
        if documents is None or fields.get(self.document_column) is not None:
            return query, text_of(fields.get(self.document_column), self.document_column)
        if not isinstance(documents, list) or not documents:
            found = "is no list of texts" if documents != [] else "holds no document"
            raise InvalidRequest(f"{self.documents_column} {found}", self.documents_column)
        named = enumerate(documents)
        return query, *(text_of(document, f"{self.documents_column}[{place}]") for place, document in named)


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankJob(Job):
    """What is asked for.

    Attributes:
        instruction: what makes a document relevant; None for the model's own.
        truncate: what happens to pairs that are too long; ``none`` makes their rows errors.
        raw: whether scores are the model's own numbers; None does as the model's folder says.
    """

    columns: ClassVar[Sequence[str]] = (ROW, "document", "rank", SCORE)

    reading: Reading = field(default_factory=lambda: Reading(take=QueryAndDocuments()))
    instruction: str | None = None
    truncate: Truncate = Truncate.END
    raw: bool | None = None


class RerankWork:
    """Work, see shard_work."""

    def __init__(self, reranker: Reranker, job: RerankJob) -> None:
        """Check the job against the model.

        Raises:
            InvalidRequest: a field is refused, or the model gives no order.
        """
        if len(reranker.labels) != 1:
            raise InvalidRequest(f"{reranker.card.name} has {len(reranker.labels)} scores and gives no order", "model")
        self._reranker = reranker
        self._job = job
        self._is_matrix = job.output.suffix == ".npy"
        self._items([Record(0, "", ("a", "a"))])
        asked = {
            "instruction": job.instruction,
            "truncate": job.truncate.value,
            "raw": job.raw,
            "rerank_template": reranker.template,
            **job.reading_facts(),
        }
        self.facts = facts_of(reranker, 1, asked)

    def prepare(self, number: int, records: Sequence[Record]) -> Shard:
        """Pairs of one query stand together, so that what they begin with is computed once; else the longest first."""
        queries = [record.text for record in records]
        longest: dict[str, int] = {}

        def make(chunk: Sequence[Record]) -> Sequence[Made]:
            made = one_by_one(self._items, chunk)
            for record, items in zip(chunk, made, strict=True):
                if not isinstance(items, Exception):
                    most = max(len(item.ids) for item in items)
                    longest[record.text] = max(most, longest.get(record.text, 0))
            return made

        # One after another: the order is made when all Items are there.
        return shard_of(
            number,
            records,
            make,
            lambda place, item: (-longest[queries[place]], queries[place], -len(item.ids)),
            self._reranker.started.longest,
        )

    def submit(self, shard: Shard) -> Future[list[Output]]:
        """See Work."""
        return self._reranker.submit(shard.items)

    def encode(self, shard: Shard, found: Sequence[Output]) -> Any:
        """See Work."""
        gained = shard.gained(found)
        scored = {
            place: np.array([output.values[0] for output in gained[place]], np.float32)  # type: ignore[union-attr]
            for place in sorted(gained)
            if isinstance(gained[place], Sequence)
        }
        return encode_shard(
            shard.records,
            [place for place, scores in scored.items() for _ in scores],
            _columns(list(scored.values())),
            Failure.among(shard.records, gained),
        )

    def _items(self, records: Sequence[Record]) -> Sequence[Sequence[Item]]:
        if self._is_matrix and any(len(record.texts) > 2 for record in records):
            raise InvalidRequest("a .npy file holds one score a row, and this row has several documents")
        request = ScoreRequest(
            queries=[record.text for record in records for _ in record.texts[1:]],
            documents=[document for record in records for document in record.texts[1:]],
            instruction=self._job.instruction,
            truncate=self._job.truncate,
            squash=None if self._job.raw is None else not self._job.raw,
            terms=TERMS,
        )
        items = iter(self._reranker.intake.prepare(request))
        return [[next(items) for _ in record.texts[1:]] for record in records]


def _columns(scores: Sequence[np.ndarray[Any, np.dtype[np.float32]]]) -> dict[str, Any]:
    """Each pair's place among its row's documents, its rank there from 0, and its score."""
    pa = arrow()
    ranks = [np.argsort(np.argsort(-row, kind="stable"), kind="stable") for row in scores]

    def joined(rows: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        return np.concatenate(rows) if rows else np.empty(0)

    return {
        "document": pa.array(joined([np.arange(len(row)) for row in scores]), pa.int32()),
        "rank": pa.array(joined(ranks), pa.int32()),
        SCORE: pa.array(joined(scores), pa.float32()),
    }

"""Stages: a query's vector -> candidates of few components, the same ones by all components, the same ones reranked.

Plain functions over a Store; each says how many it kept and how long it took. They know no model: vectors and scores
come from outside. Source of coarse-then-refine: Matryoshka Representation Learning, arXiv 2205.13147, section 4.2.2.

Legend: D full dimension, C candidates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from anydim.config import IndexSettings
from anydim.errors import InvalidRequest
from anydim.retrieval.filters import Condition, Where, conditions_of
from anydim.retrieval.layout import Layout, cut, written
from anydim.retrieval.store import Candidate, Row, Store
from anydim.types import Float32Array

_MORE: Final = 4  # times as many chunks are read where they were of too few documents

Score = Callable[[str, Sequence[str]], Sequence[float]]  # query, texts -> how relevant each text is, higher is better


@dataclass(frozen=True, slots=True)
class Stage:
    """What one stage did.

    Attributes:
        name: coarse, refine or rerank.
        by: what it compared, in words.
        candidates: how many it kept.
        milliseconds: how long it took.
    """

    name: str
    by: str
    candidates: int
    milliseconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A chunk that was found.

    Attributes:
        document: the id of its document.
        chunk: its place there, from 0.
        text: the chunk.
        metadata: its document's.
        score: what the hits are ordered by: ``relevance`` where they were reranked, else ``cosine``.
        cosine: of the full vectors.
        relevance: what the reranker said, or None.
    """

    document: str
    chunk: int
    text: str
    metadata: Mapping[str, Any]
    score: float
    cosine: float
    relevance: float | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Hits, best first, and the stages that led to them."""

    hits: list[Hit]
    stages: list[Stage]


def find(
    store: Store,
    layout: Layout,
    query_D: Float32Array,
    settings: IndexSettings,
    where: Where | None = None,
    per_document: bool = False,
    to_rerank: bool = False,
) -> SearchResult:
    """The first two stages; ``to_rerank`` keeps as many hits as a reranker should see.

    Raises:
        InvalidRequest: a condition does not fit the index.
    """
    conditions = conditions_of(where, layout.fields)
    wanted = max(settings.top_k, settings.rerank_candidates) if to_rerank else settings.top_k
    candidates, first = coarse(store, layout, query_D, max(settings.candidates, wanted), conditions)
    hits, second = refine(store, layout, query_D, candidates, wanted, per_document)
    return SearchResult(hits, [first, second])


def check_query(query: object) -> None:
    """Refuse what cannot be searched for.

    Raises:
        InvalidRequest: the query is no text, or an empty one.
    """
    if not isinstance(query, str) or not query.strip():
        raise InvalidRequest("query must be a text that is not empty", "query")


def coarse(
    store: Store, layout: Layout, query_D: Float32Array, count: int, conditions: Sequence[Condition]
) -> tuple[list[Candidate], Stage]:
    """The nearest ``count`` chunks by the coarse vectors alone.

    Args:
        store: the index.
        layout: how it was made.
        query_D: the query's full vector.
        count: how many candidates to keep.
        conditions: what the chunks' metadata must fulfil.
    """
    began = time.perf_counter()
    query_1d = cut(query_D[None], layout.coarse_dim)
    if layout.coarse_dtype == "binary":
        query_1d = written(query_1d, "binary")
    candidates = store.nearest(query_1d[0], count, conditions)
    by = f"{layout.coarse_dim} x {layout.coarse_dtype}"
    return candidates, Stage("coarse", by, len(candidates), _since(began))


def refine(
    store: Store,
    layout: Layout,
    query_D: Float32Array,
    candidates: Sequence[Candidate],
    count: int,
    per_document: bool = False,
) -> tuple[list[Hit], Stage]:
    """The best ``count`` candidates by the cosine of the full vectors.

    Args:
        store: the index.
        layout: how it was made.
        query_D: the query's full vector.
        candidates: what ``coarse`` found.
        count: how many to keep.
        per_document: keep the best chunk of each document alone.
    """
    began = time.perf_counter()
    vectors = store.vectors([candidate.key for candidate in candidates])
    ranked: list[tuple[Any, float]] = []
    if vectors:
        full_CD = cut(np.stack(list(vectors.values())).astype(np.float32), layout.dim)
        cosines_C = full_CD @ cut(query_D[None], layout.dim)[0]
        ranked = sorted(zip(vectors, cosines_C.tolist(), strict=True), key=lambda pair: -pair[1])
    hits = _read(store, ranked, count, per_document)
    return hits, Stage("refine", f"{layout.dim} x {layout.dtype}", len(hits), _since(began))


def _read(store: Store, ranked: Sequence[tuple[Any, float]], count: int, per_document: bool) -> list[Hit]:
    """The texts of the best ``count``, and no others: they are most of what an index holds."""
    most = count
    while True:
        # What is as good as the last goes along, so that equal scores are ordered by document in every database.
        last = ranked[min(most, len(ranked)) - 1][1] if ranked else 0.0
        chosen = {key: cosine for key, cosine in ranked if cosine >= last}
        rows = store.fetch(list(chosen))
        hits = sorted((_hit(row, chosen[key]) for key, row in rows.items()), key=_order)
        if per_document:
            hits = _first_of_each(hits)
        if len(hits) >= count or len(chosen) == len(ranked):
            return hits[:count]
        most *= _MORE


def reranked(hits: Sequence[Hit], scores: Sequence[float], count: int) -> list[Hit]:
    """The best ``count`` hits by a reranker's scores, one a hit."""
    judged = [replace(hit, score=float(score), relevance=float(score)) for hit, score in zip(hits, scores, strict=True)]
    return sorted(judged, key=_order)[:count]


def rerank(score: Score, name: str, query: str, hits: Sequence[Hit], count: int) -> tuple[list[Hit], Stage]:
    """Ask a cross-encoder how relevant each hit's text is to the query, and keep the best ``count``.

    Args:
        score: the cross-encoder.
        name: what the stage calls it.
        query: as the user wrote it.
        hits: what ``refine`` found.
        count: how many to keep.
    """
    began = time.perf_counter()
    best = reranked(hits, score(query, [hit.text for hit in hits]) if hits else [], count)
    return best, Stage("rerank", name, len(best), _since(began))


def _hit(row: Row, cosine: float) -> Hit:
    return Hit(
        document=row.document, chunk=row.chunk, text=row.text, metadata=row.metadata, score=cosine, cosine=cosine
    )


def _order(hit: Hit) -> tuple[float, str, int]:
    return -hit.score, hit.document, hit.chunk


def _first_of_each(hits: Sequence[Hit]) -> list[Hit]:
    found: dict[str, Hit] = {}
    for hit in hits:
        found.setdefault(hit.document, hit)
    return list(found.values())


def _since(began: float) -> float:
    return 1e3 * (time.perf_counter() - began)

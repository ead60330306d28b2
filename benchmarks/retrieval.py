"""What do few components lose, and what do they save? Search over real pages, against full vectors and against BM25.

Run: python -m benchmarks.retrieval [--model minilm] [--pages 5000] [--queries 1000] [--out FILE]

The pages are docstrings of installed packages, each with one question (benchmarks/docstrings.py). They are indexed in
LanceDB through anydim.retrieval, once; further kinds of small vectors are cut from the same full ones. Every method
answers the same questions: recall@10 and nDCG@10, the bytes of vectors that a search reads, and its time without that
of embedding the question. Needs the test extra.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import torch

from anydim import Embedder
from anydim.quality.rotations import by_spread
from anydim.retrieval import Document, Index
from anydim.retrieval.layout import Layout
from anydim.retrieval.stages import coarse, refine
from anydim.retrieval.store import Row, Store, open_store
from anydim.types import Float32Array
from benchmarks import report
from benchmarks.docstrings import Page, pages, versions
from benchmarks.texts import folder_of

_TOP: Final = 10
_WRITTEN: Final = 5000
_BAR: Final = 0.99  # of the full dimension's recall, at a tenth of its bytes
_TWO_STAGES: Final = (  # coarse dimension, its type, the type of all components, candidates
    (64, "int8", "float32", 400),
    (64, "int8", "float32", 700),
    (64, "int8", "int8", 400),
    (64, "int8", "int8", 1000),
    (64, "int8", "int8", 2000),
    (64, "binary", "int8", 2000),
    (32, "int8", "int8", 2000),
)
_ROTATED: Final = (
    (64, "int8", "float32", 400),
    (64, "int8", "int8", 400),
    (64, "int8", "int8", 1000),
    (64, "int8", "int8", 2000),
    (32, "int8", "int8", 2000),
)

Ranked = list[str]  # names of pages, best first


@dataclass(frozen=True, slots=True)
class Method:
    """A way to answer a question; ``search`` takes its place among the questions."""

    name: str
    search: Callable[[int], Ranked]
    bytes_read: int


def quality(ranked: Sequence[Ranked], wanted: Sequence[str]) -> tuple[float, float]:
    """Recall@10 and nDCG@10, where each question has one right page."""
    places = [
        list(found[:_TOP]).index(right) if right in found[:_TOP] else None
        for found, right in zip(ranked, wanted, strict=True)
    ]
    gains = [0.0 if place is None else 1 / math.log2(place + 2) for place in places]
    return sum(place is not None for place in places) / len(places), sum(gains) / len(gains)


def measured(method: Method, wanted: Sequence[str]) -> dict[str, Any]:
    """One row: how good, how fast, how much is read."""
    method.search(0)
    ranked, times = [], []
    for place in range(len(wanted)):
        began = time.perf_counter()
        ranked.append(method.search(place))
        times.append(1e3 * (time.perf_counter() - began))
    recall, ndcg = quality(ranked, wanted)
    return {
        "method": method.name,
        "recall_at_10": recall,
        "ndcg_at_10": ndcg,
        "kbytes_read": method.bytes_read / 1000,
        "p50_ms": float(np.median(times)),
        "p99_ms": float(np.quantile(times, 0.99)),
    }


def full_scan(store: Store, layout: Layout, queries_QD: Float32Array, chunks: int) -> Method:
    """LanceDB's own exact search by all components: the same index with the full vector in the first stage."""

    def search(place: int) -> Ranked:
        candidates, _ = coarse(store, layout, queries_QD[place], _TOP, ())
        rows = store.fetch([candidate.key for candidate in candidates])
        return [rows[candidate.key].document for candidate in candidates]

    return Method(f"full {layout.coarse_dim}", search, chunks * layout.coarse_bytes)


def two_stages(
    store: Store, layout: Layout, queries_QD: Float32Array, chunks: int, candidates: int, with_refine: bool = True
) -> Method:
    """The first stage of anydim.retrieval and the second, or the first alone."""

    def search(place: int) -> Ranked:
        found, _ = coarse(store, layout, queries_QD[place], candidates, ())
        if not with_refine:
            rows = store.fetch([candidate.key for candidate in found])
            return [rows[candidate.key].document for candidate in found]
        hits, _ = refine(store, layout, queries_QD[place], found, _TOP)
        return [hit.document for hit in hits]

    name = f"{layout.coarse_dim} x {layout.coarse_dtype}"
    read = chunks * layout.coarse_bytes
    if not with_refine:
        return Method(f"{name} alone", search, read)
    refined = f"{name}, {candidates} refined by {layout.dim} x {layout.dtype}"
    return Method(refined, search, read + candidates * layout.full_bytes)


def bm25(corpus: Sequence[Page], questions: Sequence[Page]) -> Method:
    """BM25 with English stop words, through bm25s; the bytes are those of its whole matrix."""
    import bm25s

    def words_of(texts: list[str]) -> Any:
        return bm25s.tokenize(texts, stopwords="en", show_progress=False)

    retriever = bm25s.BM25()
    retriever.index(words_of([page.text for page in corpus]), show_progress=False)
    tokens = [words_of([page.question]) for page in questions]

    def search(place: int) -> Ranked:
        found, _ = retriever.retrieve(tokens[place], k=_TOP, show_progress=False)
        return [corpus[int(at)].name for at in found[0]]

    matrix = [part for part in retriever.scores.values() if isinstance(part, np.ndarray)]
    return Method("BM25", search, sum(part.nbytes for part in matrix))


def rows_of(index: Index) -> list[Row]:
    """Every chunk of an index with its full vector."""
    found = index.store.nearest(np.ones(index.layout.coarse_dim, np.float32), index.count(), ())
    keys = [candidate.key for candidate in found]
    rows, vectors = index.store.fetch(keys), index.store.vectors(keys)
    return [replace(rows[key], full=vectors[key]) for key in keys]


def rotation_of(vectors_ND: Float32Array) -> Float32Array:
    """The rotation (D, D) after which the first components tell the documents apart best: their principal axes.

    What ``--projection`` applies before the cut. The axes are those of the covariance, so that what all documents have
    in common comes last; cosines of full vectors stay.
    """
    axes_DD: Float32Array = by_spread(torch.from_numpy(vectors_ND)).numpy()
    return axes_DD


def cut_anew(
    folder: Path,
    layout: Layout,
    rows: Sequence[Row],
    dim: int,
    dtype: Any,
    full_dtype: Any = "float32",
    name: str = "cut",
) -> tuple[Store, Layout]:
    """The same chunks with other vectors, in a collection of their own."""
    other = msgspec.structs.replace(layout, coarse_dim=dim, coarse_dtype=dtype, dtype=full_dtype)
    store = open_store(str(folder), f"{name}_{dim}_{dtype}_{full_dtype}")
    if store.read_layout() is None:
        store.write_layout(other, msgspec.json.encode(other))
        whole_ND = np.stack([row.full for row in rows])
        coarse_Nd, full_ND = other.coarse(whole_ND), other.full(whole_ND)
        vectors = zip(rows, coarse_Nd, full_ND, strict=True)
        cut_rows = [replace(row, coarse=coarse_d, full=full_D) for row, coarse_d, full_D in vectors]
        for start in range(0, len(rows), _WRITTEN):
            store.replace(cut_rows[start : start + _WRITTEN], ())  # the collection is empty: nothing is replaced
        store.finish()
    return store, other


def rotated(folder: Path, layout: Layout, rows: Sequence[Row], queries_QD: Float32Array) -> list[Method]:
    """Two stages over vectors that were rotated before they were cut."""
    full_ND = np.stack([row.full for row in rows])
    rotation_DD = rotation_of(full_ND)
    turned = [replace(row, full=vector) for row, vector in zip(rows, full_ND @ rotation_DD, strict=True)]
    methods = []
    for dim, dtype, full_dtype, candidates in _ROTATED:
        store, other = cut_anew(folder, layout, turned, dim, dtype, full_dtype, "turned")
        method = two_stages(store, other, queries_QD @ rotation_DD, len(rows), min(candidates, len(rows)))
        methods.append(replace(method, name=f"rotated {method.name}"))
    return methods


def with_shares(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each method's recall and bytes as shares of the full dimension's, and whether it meets the bar."""
    full = next(row for row in rows if row["method"].startswith("full"))
    for row in rows:
        row["recall_share"] = row["recall_at_10"] / full["recall_at_10"]
        row["bytes_share"] = row["kbytes_read"] / full["kbytes_read"]
        is_met = row["recall_share"] >= _BAR and row["bytes_share"] <= 0.1
        row["bar"] = ("met" if is_met else "missed") if "refined" in row["method"] else ""
    return rows


def build(folder: Path, model: Path, corpus: Sequence[Page]) -> tuple[Index, dict[str, Any]]:
    """Index the corpus, or go on with it, and what that took. The index needs its model no more to be read."""
    with Embedder(str(model), show_progress=False) as embedder:
        index = Index(str(folder), embedder, index_dtype="float32")
        began = time.perf_counter()
        done = index.add(Document(page.name, page.text) for page in corpus)
        seconds = time.perf_counter() - began
    made = done.added == len(corpus)  # a run that went on says nothing of the whole
    return index, {"pages": len(corpus), "chunks": index.count(), "index_seconds": seconds if made else None}


def questions_of(model: Path, questions: Sequence[Page]) -> tuple[Float32Array, float]:
    """Full vectors of the questions, float32 (Q, D), and the milliseconds that one takes alone (p50)."""
    with Embedder(str(model), show_progress=False) as embedder:
        asked = [page.question for page in questions]
        queries_QD: Float32Array = embedder.embed(asked, input_type="query", truncate="end")
        times = []
        for question in asked[:50]:
            began = time.perf_counter()
            embedder.embed(question, input_type="query", truncate="end")
            times.append(1e3 * (time.perf_counter() - began))
    return queries_QD, float(np.median(times))


def measure(folder: Path, model: Path, corpus: Sequence[Page], questions: Sequence[Page]) -> list[dict[str, Any]]:
    """All methods on the same questions."""
    index, cost = build(folder, model, corpus)
    queries_QD, cost["question_p50_ms"] = questions_of(model, questions)
    chunks, layout, rows = index.count(), index.layout, rows_of(index)
    wanted = [page.name for page in questions]
    store, whole = cut_anew(folder, layout, rows, layout.dim, "float32")
    methods = [full_scan(store, whole, queries_QD, chunks)]
    store, other = cut_anew(folder, layout, rows, layout.dim, "int8")
    methods.append(two_stages(store, other, queries_QD, chunks, _TOP, with_refine=False))
    for dim, dtype, full_dtype, candidates in _TWO_STAGES:
        store, other = cut_anew(folder, layout, rows, dim, dtype, full_dtype)
        methods.append(two_stages(store, other, queries_QD, chunks, min(candidates, chunks)))
        if candidates == 400 and full_dtype == "float32":
            methods.append(two_stages(store, other, queries_QD, chunks, _TOP, with_refine=False))
    methods += rotated(folder, layout, rows, queries_QD)
    methods.append(bm25(corpus, questions))
    found = []
    for method in methods:
        found.append(measured(method, wanted))
        print(found[-1], flush=True)
    return [cost, *with_shares(found)]


def main() -> None:
    """Parse the command line, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm", help="minilm, starter or a folder")
    parser.add_argument("--pages", type=int, default=5000)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--db", type=Path, help="a folder to keep the index in; a stopped run goes on there")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    corpus = pages(options.pages)
    print(f"{len(corpus)} pages of {versions()}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(options.db or Path(scratch), folder_of(options.model), corpus, corpus[: options.queries])
    report.publish(f"retrieval-{Path(options.model).name}", rows, options.out)


if __name__ == "__main__":
    main()

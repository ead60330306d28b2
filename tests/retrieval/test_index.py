"""An index in LanceDB: found as sentence-transformers and scikit-learn find it, updated, resumed, never mixed."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from sklearn.neighbors import NearestNeighbors

from anydim import Embedder
from anydim.errors import ConfigError, InvalidRequest
from anydim.retrieval import Document, Index, Refusal, SearchResult
from tests.shelf import load_reference

from .conftest import OpenIndex, articles

QUERIES = ("the right to go to school", "fair trial before a court", "rest and holidays with pay")


@pytest.fixture(scope="module")
def library(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    """Ninety articles in three languages."""
    with Index(str(tmp_path_factory.mktemp("library")), embedder, index_dtype="float32") as index:
        index.add(articles("en", "de", "fr"))
        yield index


def test_hits_are_those_of_sentence_transformers_and_scikit_learn(library: Index, minilm_folder: Path) -> None:
    chunks = library.search("x", top_k=1000, candidates=10_000).hits
    assert len(chunks) == library.count() > 90
    reference = load_reference(minilm_folder)
    neighbours = NearestNeighbors(n_neighbors=10, metric="cosine").fit(reference.encode([hit.text for hit in chunks]))
    distances, places = neighbours.kneighbors(reference.encode(list(QUERIES)))
    for query, row, wanted in zip(QUERIES, distances, places, strict=True):
        hits = library.search(query, candidates=10_000).hits
        assert [(hit.document, hit.chunk) for hit in hits] == [(chunks[at].document, chunks[at].chunk) for at in wanted]
        np.testing.assert_allclose([hit.score for hit in hits], 1 - row, atol=1e-4)


def test_all_components_as_small_integers_find_the_same(library: Index, open_index: OpenIndex) -> None:
    small = open_index()
    small.add(articles("en", "de", "fr"))
    assert (small.layout.dtype, small.layout.full_bytes) == ("int8", library.layout.full_bytes // 4)
    for query in QUERIES:
        found, exact = (index.search(query, candidates=10_000).hits for index in (small, library))
        assert [hit.document for hit in found[:3]] == [hit.document for hit in exact[:3]]
        np.testing.assert_allclose([hit.score for hit in found], [hit.score for hit in exact], atol=3e-3)


def test_each_stage_says_what_it_kept_and_how_long_it_took(library: Index) -> None:
    found = library.search("school", candidates=40, top_k=5)
    assert [(stage.name, stage.by, stage.candidates) for stage in found.stages] == [
        ("coarse", "64 x int8", 40),
        ("refine", "384 x float32", 5),
    ]
    assert all(stage.milliseconds > 0 for stage in found.stages)


def test_a_reranker_judges_what_the_stages_before_it_kept(library: Index) -> None:
    def by_length(query: str, texts: list[str]) -> list[float]:
        assert query == "school"
        return [-len(text) for text in texts]

    found = library.search("school", top_k=3, score=by_length, score_name="shortest first")
    assert [stage.name for stage in found.stages] == ["coarse", "refine", "rerank"]
    assert [stage.candidates for stage in found.stages] == [library.count(), 50, 3]
    assert [len(hit.text) for hit in found.hits] == sorted(len(hit.text) for hit in found.hits)
    assert all(hit.relevance == hit.score != hit.cosine for hit in found.hits)


def test_filters_hold_before_anything_is_counted(library: Index) -> None:
    found = library.search("school", where={"lang": "de", "article": {">=": 20, "<=": 26}}, top_k=100)
    assert {hit.metadata["lang"] for hit in found.hits} == {"de"}
    assert {hit.metadata["article"] for hit in found.hits} == set(range(20, 27))
    assert not library.search("school", where=["lang=en", "article>1000"]).hits


def test_one_hit_a_document_where_asked(library: Index) -> None:
    documents = [hit.document for hit in library.search("everyone", top_k=100, per_document=True).hits]
    assert len(documents) == len(set(documents)) == 90


def test_a_rotation_fitted_to_the_documents_finds_more_with_few_components(
    library: Index, embedder: Embedder, minilm_folder: Path, tmp_path: Path
) -> None:
    documents = articles("en", "de", "fr")
    vectors = embedder.embed([document.text for document in documents], output_dim=384, truncate="end")
    _, axes = np.linalg.eigh(np.cov(vectors.T))
    save_file({"rotation": np.ascontiguousarray(axes[:, ::-1], np.float32)}, tmp_path / "rotation.safetensors")
    projection = {"projection": str(tmp_path / "rotation.safetensors")}
    with (
        Embedder(str(minilm_folder), dtype="float32", threads=1, **projection) as turning,
        Index(str(tmp_path / "turned"), turning, index_dtype="float32") as turned,
    ):
        turned.add(documents)
        queries = [document.text[:60] for document in documents]
        full = [turned.search(query, candidates=10_000) for query in queries]
        few = [turned.search(query, candidates=10) for query in queries]
        plain = [library.search(query, candidates=10) for query in queries]
    for query, found in zip(queries[:10], full, strict=False):  # a rotation changes no cosine of full vectors
        expected = library.search(query, candidates=10_000).hits
        np.testing.assert_allclose([hit.score for hit in found.hits], [hit.score for hit in expected], atol=1e-4)
    assert shared(few, full) > shared(plain, full)


def shared(some: list[SearchResult], others: list[SearchResult]) -> int:
    """How many hits two lists of results have in common."""
    places = [[{(hit.document, hit.chunk) for hit in found.hits} for found in results] for results in (some, others)]
    return sum(len(one & other) for one, other in zip(*places, strict=True))


@pytest.mark.parametrize("query", ["", "  ", "\n"])
def test_an_empty_query_is_refused(library: Index, query: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        library.search(query)
    assert caught.value.param == "query"


def test_the_same_documents_again_cost_nothing_and_changed_ones_are_replaced(open_index: OpenIndex) -> None:
    documents = articles("en")
    index = open_index()
    assert index.add(documents).added == 30
    changed = Document(documents[3].id, "All about penguins.", {"lang": "en", "article": 99})
    report = open_index().add([*documents[:3], changed, *documents[4:]])
    assert (report.added, report.updated, report.unchanged, report.chunks) == (0, 1, 29, 1)
    hits = open_index().search("penguins", top_k=1).hits
    assert (hits[0].document, hits[0].text, hits[0].metadata["article"]) == (changed.id, "All about penguins.", 99)
    assert changed.text not in {hit.text for hit in open_index().search("x", where={"article": 4}).hits}


def test_deleted_and_pruned_documents_are_gone(open_index: OpenIndex) -> None:
    documents = articles("en")
    index = open_index()
    index.add(documents)
    assert index.delete(["en-1", "never-there"]) == 1
    assert index.add(documents[5:], prune=True).removed == 4
    assert {hit.document for hit in index.search("x", top_k=1000, candidates=10_000).hits} == {
        document.id for document in documents[5:]
    }


def test_nothing_is_pruned_where_a_document_could_not_be_read(open_index: OpenIndex) -> None:
    index = open_index()
    index.add(articles("en"))
    report = index.add([*articles("en")[:2], Refusal("b.jsonl:3", "is not JSON")], prune=True)
    assert (report.removed, report.unchanged) == (0, 2)


def test_a_run_that_was_interrupted_goes_on_where_it_was(
    open_index: OpenIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anydim.retrieval.index._BATCH", 8)
    documents = articles("en")

    def interrupted() -> Iterator[Document]:
        yield from documents[:20]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_index().add(interrupted())
    there = open_index().count()
    report = open_index().add(documents)
    assert 0 < there < open_index().count()
    assert (report.added, report.unchanged) == (14, 16)
    assert open_index().add(documents).unchanged == 30


def test_wrong_documents_are_named_and_the_others_taken(open_index: OpenIndex) -> None:
    index = open_index()
    report = index.add(
        [
            Document("a", "first", {"year": 2020}),
            Document("a", "again"),
            Document("b", "second", {"year": "soon"}),
            Document("c", " "),
            Document("d", "third", {"deep": {"year": 1}, "null": None}),
        ]
    )
    assert report.added == 2
    assert [(refusal.where, refusal.reason) for refusal in report.refusals] == [
        ("a", "has an id that was there before in this run"),
        ("b", "year is text, but a number in this index"),
        ("c", "has no text"),
    ]
    assert index.layout.fields == {"year": "number"}
    assert {hit.document: hit.metadata for hit in index.search("x").hits}["d"] == {"deep": {"year": 1}, "null": None}


def test_fields_that_come_later_can_be_filtered_on(open_index: OpenIndex) -> None:
    open_index().add([Document("a", "first", {"lang": "en"})])
    index = open_index()
    index.add([Document("b", "second", {"lang": "de", 'it\'s "odd".name': True, "n": 0.5})])
    assert [hit.document for hit in index.search("x", where={'it\'s "odd".name': True, "n": {"<": 1}}).hits] == ["b"]
    assert [hit.document for hit in index.search("x", where={"n": {"!=": 3}}).hits] == ["b"]
    assert [hit.document for hit in open_index().search("x", where={"lang": "e' OR '1'='1"}).hits] == []


def test_a_reader_sees_what_another_connection_wrote(open_index: OpenIndex) -> None:
    writer = open_index()
    writer.add(articles("en")[:5])
    reader = open_index()
    assert reader.count() > 0
    writer.add([Document("new", "Penguins live in the south.")])
    assert reader.search("penguins", top_k=1).hits[0].document == "new"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"coarse_dim": 32}, "made with --coarse-dim 64, got 32"),
        ({"coarse_dtype": "binary"}, "made with --coarse-dtype int8, got binary"),
        ({"index_dim": 128}, "made with --index-dim 384, got 128"),
        ({"chunk_tokens": 64}, "made with --chunk-tokens 128, got 64"),
    ],
)
def test_other_settings_than_it_was_made_with_are_refused(
    open_index: OpenIndex, settings: dict[str, object], words: str
) -> None:
    open_index(chunk_tokens=128).add(articles("en")[:2])
    assert open_index(chunk_tokens=128).count()
    with pytest.raises(ConfigError, match=words):
        open_index(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"coarse_dim": 50}, "--coarse-dim must be a multiple of 32 between 32 and 384, got 50"),
        ({"coarse_dim": 128, "index_dim": 64}, "--coarse-dim 128 is more than --index-dim 64"),
        ({"index_dim": 400}, "--index-dim must be a multiple of 32"),
        ({"chunk_tokens": 10_000}, "--chunk-tokens must be at most"),
        ({"chunk_tokens": 40, "chunk_overlap": 30}, "--chunk-overlap must be at most half"),
        ({"collection": "No Name"}, "--collection must be"),
        ({"coarse_dims": 64}, "unknown setting coarse_dims"),
        ({"db": "mysql://user:secret@host/db"}, r"--db must be .*, got mysql://\.\.\.@host/db"),
    ],
)
def test_wrong_settings_are_refused(open_index: OpenIndex, settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        open_index(**settings)


def test_an_index_that_is_not_there_is_refused(open_index: OpenIndex) -> None:
    with pytest.raises(ConfigError, match="there is no index named documents at"):
        open_index().search("x")


def test_another_model_is_refused(open_index: OpenIndex, starter_folder: Path, tmp_path: Path) -> None:
    open_index().add(articles("en")[:2])
    with Embedder(str(starter_folder), threads=1) as other, pytest.raises(ConfigError, match="two models do not mix"):
        Index(str(tmp_path / "db"), other)


def test_a_model_that_changed_is_noticed(open_index: OpenIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    open_index().add(articles("en")[:2])
    monkeypatch.setattr("anydim.retrieval.index.PROBE", "something else entirely")
    with pytest.raises(ConfigError, match="gives other vectors than when the index was made"):
        open_index()

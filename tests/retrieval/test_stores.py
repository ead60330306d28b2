"""Every database keeps, finds, filters, replaces and forgets alike; scikit-learn says what is nearest.

PostgreSQL with pgvector runs as a server of the tests' own. Qdrant runs in its client's local mode, which compares in
float32 whatever is asked; its own quantisation is therefore not tested here.
"""

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_distances

from anydim.errors import ConfigError, Unavailable
from anydim.retrieval.filters import conditions_of
from anydim.retrieval.layout import Layout, cut, written
from anydim.retrieval.store import Row, Store, open_store

from .conftest import OpenIndex, articles

DIM, COARSE = 96, 32
HOMES = (
    *(("lance", dtype) for dtype in ("int8", "float16", "float32", "binary")),
    *(("postgres", dtype) for dtype in ("float32", "binary")),
    *(("qdrant", dtype) for dtype in ("float32", "float16", "int8", "binary")),
)
LANGUAGES = ("en", "de", "it's", 'say "no"', "back\\slash", "中文")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL server with pgvector; it stops at the end."""
    pgserver = pytest.importorskip("pgserver", reason="pgserver has no wheel for this platform")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # PostgreSQL refuses to run as root, and then has a user of its own
        server = pgserver.get_server(Path(folder, "data"), cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


Address = Callable[[str], str]


@pytest.fixture
def address_of(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Address]:
    """Where a database of each kind answers; a PostgreSQL database is made for each test."""
    with contextlib.ExitStack() as stack:

        def address(kind: str) -> str:
            if kind == "postgres":
                return stack.enter_context(fresh_database(request.getfixturevalue("postgres")))
            return f"qdrant:{tmp_path / 'qdrant'}" if kind == "qdrant" else str(tmp_path / "lance")

        yield address


@contextlib.contextmanager
def fresh_database(server: str) -> Iterator[str]:
    import psycopg

    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS fresh WITH (FORCE)")
        connection.execute("CREATE DATABASE fresh")
    yield server.replace("/postgres?", "/fresh?")


def layout_of(dtype: str, **fields: Any) -> Layout:
    return Layout(
        model="m",
        dim=DIM,
        dtype="float32",
        coarse_dim=COARSE,
        coarse_dtype=dtype,  # type: ignore[arg-type]
        chunk_tokens=64,
        chunk_overlap=0,
        probe=[],
        fields=fields,
    )


FIELDS: Any = {"lang": "text", "year": "number", "open": "boolean"}


def rows_of(layout: Layout, count: int, seed: int = 0) -> list[Row]:
    """Two chunks a document, with random vectors; every fifth document has no year."""
    full_ND = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    full_ND /= np.linalg.norm(full_ND, axis=1, keepdims=True)
    coarse_Nd = layout.coarse(full_ND)
    return [
        Row(
            document=f"doc'{number // 2:03}",
            chunk=number % 2,
            text=f"text {number} \\ \" ' 中",
            metadata=metadata(number // 2),
            digest=f"digest {seed}",
            coarse=coarse_Nd[number],
            full=full_ND[number],
        )
        for number in range(count)
    ]


def metadata(number: int) -> dict[str, Any]:
    found: dict[str, Any] = {"lang": LANGUAGES[number % 6], "year": 2000 + number, "open": number % 3 == 0}
    if number % 5 == 0:
        del found["year"]
    return found | {"nested": {"list": [1, None]}}


@contextlib.contextmanager
def opened(address: str) -> Iterator[Store]:
    store = open_store(address, "papers")
    try:
        yield store
    finally:
        store.close()


def fill(store: Store, dtype: str, count: int = 60) -> tuple[Layout, list[Row]]:
    layout = layout_of(dtype, **FIELDS)
    store.write_layout(layout, msgspec.json.encode(layout))
    rows = rows_of(layout, count)
    store.replace(rows, sorted({row.document for row in rows}))
    return layout, rows


def query_of(layout: Layout, seed: int = 7) -> Any:
    query_1d = cut(np.random.default_rng(seed).standard_normal((1, DIM)).astype(np.float32), COARSE)
    return (written(query_1d, "binary") if layout.coarse_dtype == "binary" else query_1d)[0]


@pytest.mark.parametrize(("kind", "dtype"), HOMES)
def test_the_nearest_are_those_of_scikit_learn(kind: str, dtype: str, address_of: Address) -> None:
    with opened(address_of(kind)) as store:
        layout, rows = fill(store, dtype)
        query_d = query_of(layout)
        found = store.nearest(query_d, 20, ())
        if dtype == "binary":
            bits_Nd = np.unpackbits(np.stack([row.coarse for row in rows]), axis=1)
            scores = 1 - (bits_Nd != np.unpackbits(query_d)).sum(1) / (COARSE / 2)
        else:
            scores = 1 - cosine_distances(np.stack([row.coarse for row in rows]).astype(float), query_d[None])[:, 0]
        np.testing.assert_allclose(
            [candidate.score for candidate in found], np.sort(scores)[::-1][:20], atol=2e-3 if "16" in dtype else 1e-5
        )
        keys = [candidate.key for candidate in found]
        fetched, vectors = store.fetch(keys), store.vectors(keys)
        assert fetched.keys() == vectors.keys() == set(keys)
        assert len(fetched) == 20
        by_place = {(row.document, row.chunk): (row, score) for row, score in zip(rows, scores, strict=True)}
        for candidate in found:
            row = fetched[candidate.key]
            original, score = by_place[row.document, row.chunk]
            assert candidate.score == pytest.approx(score, abs=2e-3)
            assert (row.text, dict(row.metadata), row.digest) == (original.text, original.metadata, original.digest)
            np.testing.assert_allclose(vectors[candidate.key], original.full, atol=1e-6)


WHERES: tuple[tuple[Any, Callable[[dict[str, Any]], bool]], ...] = (
    ({"lang": "it's"}, lambda row: row["lang"] == "it's"),
    ({"lang": ['say "no"', "back\\slash"]}, lambda row: row["lang"] in ('say "no"', "back\\slash")),
    ({"lang": {"!=": "中文"}}, lambda row: row["lang"] != "中文"),
    ({"year": {">=": 2005, "<": 2011}}, lambda row: 2005 <= row.get("year", 0) < 2011),
    ({"year": 2007}, lambda row: row.get("year") == 2007),
    ({"year": {"!=": 2007}}, lambda row: row.get("year", 2007) != 2007),
    ({"year": [2001, 2002.0]}, lambda row: row.get("year") in (2001, 2002)),
    ({"year": {"<=": 2003.5}}, lambda row: row.get("year", 9999) <= 2003.5),
    ({"open": True, "lang": "en"}, lambda row: row["open"] and row["lang"] == "en"),
    ({"open": {"!=": True}, "year": {">": 2001}}, lambda row: not row["open"] and row.get("year", 0) > 2001),
    ({"lang": "nobody's"}, lambda row: False),
)


@pytest.mark.parametrize(
    ("kind", "dtype"), [("lance", "int8"), ("lance", "float32"), ("postgres", "float32"), ("qdrant", "float32")]
)
def test_a_filter_holds_as_python_would_have_it(kind: str, dtype: str, address_of: Address) -> None:
    with opened(address_of(kind)) as store:
        layout, rows = fill(store, dtype)
        for where, holds in WHERES:
            found = store.nearest(query_of(layout), 1000, conditions_of(where, layout.fields))
            documents = {(row.document, row.chunk) for row in store.fetch([each.key for each in found]).values()}
            assert documents == {(row.document, row.chunk) for row in rows if holds(dict(row.metadata))}, where


@pytest.mark.parametrize("kind", ["lance", "postgres", "qdrant"])
def test_documents_are_replaced_whole_and_deleted(kind: str, address_of: Address) -> None:
    with opened(address_of(kind)) as store:
        layout, rows = fill(store, "float32", 20)
        newer = [replace(rows[0], text="new", digest="newer"), replace(rows[2], document="another", chunk=0)]
        store.replace(newer, ["doc'000", "another"])
        assert store.count() == 20
        assert store.digests(["doc'000", "doc'001", "another", "nobody"]) == {
            "doc'000": "newer",
            "doc'001": "digest 0",
            "another": "digest 0",
        }
        store.delete(["doc'001", "nobody"])
        store.delete([])
        assert sorted(store.documents()) == sorted(["another", *(f"doc'{number:03}" for number in (0, *range(2, 10)))])
        texts = {
            row.text for row in store.fetch([each.key for each in store.nearest(query_of(layout), 99, ())]).values()
        }
        assert len(texts) == store.count() == 18
        store.finish()
        assert store.count() == 18


@pytest.mark.parametrize("kind", ["lance", "postgres"])
def test_a_second_writer_is_kept_out_until_the_first_is_done(kind: str, address_of: Address) -> None:
    address = address_of(kind)
    with opened(address) as first, opened(address) as second:
        with (
            first.writing(),
            pytest.raises(Unavailable, match="another process is writing to papers"),
            second.writing(),
        ):
            pass
        with second.writing():
            fill(second, "float32", 4)
        with opened(address) as third:
            assert third.count() == 4


@pytest.mark.parametrize("kind", ["lance", "postgres", "qdrant"])
def test_all_is_there_when_it_is_opened_again_and_fields_may_come_later(kind: str, address_of: Address) -> None:
    address = address_of(kind)
    with opened(address) as store:
        assert store.read_layout() is None
        fill(store, "float32", 10)
    with opened(address) as store:
        body = store.read_layout()
        assert body is not None
        layout = msgspec.json.decode(body, type=Layout)
        assert layout == layout_of("float32", **FIELDS)
        wider = layout.with_fields({"added": "x"})
        store.write_layout(wider, msgspec.json.encode(wider))
        row = replace(rows_of(layout, 1, seed=5)[0], document="late", metadata={"added": "x"})
        store.replace([row], ["late"])
        found = store.nearest(query_of(layout), 10, conditions_of({"added": "x"}, wider.fields))
        assert [each.document for each in store.fetch([one.key for one in found]).values()] == ["late"]


@pytest.mark.parametrize("kind", ["postgres", "qdrant"])
def test_an_index_lives_in_a_second_home_as_in_the_first(kind: str, address_of: Address, open_index: OpenIndex) -> None:
    documents = articles("en")
    here, there = open_index(coarse_dtype="float32", index_dtype="float32"), open_index(address_of(kind))
    for index in (here, there):
        assert index.add(documents).added == 30
        assert index.add(documents[:-2], prune=True).removed == 2
    for query in ("school", "the right to rest"):
        expected, found = (index.search(query, where={"article": {">": 2}}) for index in (here, there))
        assert [(hit.document, hit.chunk) for hit in found.hits] == [(hit.document, hit.chunk) for hit in expected.hits]
        np.testing.assert_allclose([hit.score for hit in found.hits], [hit.score for hit in expected.hits], atol=1e-5)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("postgresql://me:secret@127.0.0.1:1/none", r"postgresql://\.\.\.@127.0.0.1:1/none does not answer"),
        ("qdrant+http://127.0.0.1:1", "qdrant.http://127.0.0.1:1 does not answer"),
    ],
)
def test_a_database_that_does_not_answer_is_named_without_its_password(address: str, words: str) -> None:
    with pytest.raises(Unavailable, match=words) as caught:
        open_store(address, "papers")
    assert "secret" not in caught.value.message


def test_a_kind_of_vector_that_a_database_does_not_scan_is_refused(address_of: Address, open_index: OpenIndex) -> None:
    with pytest.raises(ConfigError, match="must be auto or one of float32, binary in this database, got int8"):
        open_index(address_of("postgres"), coarse_dtype="int8")

"""`anydim index` and `anydim search`: what they do, what they say, and what they refuse."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from anydim import Reranker
from anydim.cli.main import make_program
from anydim.retrieval import Document
from tests.shelf import Shelf

ROWS = (
    {"id": "penguin", "text": "Penguins are birds that cannot fly.", "lang": "en", "year": 2020},
    {"id": "volcano", "text": "A volcano throws out lava and ash.", "lang": "en", "year": 2021},
    {"id": "pinguin", "text": "Pinguine sind Vögel, die nicht fliegen.", "lang": "de", "year": 2022},
)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A file of three documents."""
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)) + "\n")
    return file


@pytest.fixture
def words(minilm_folder: Path, tmp_path: Path) -> list[str]:
    """The database and the model, as both commands name them."""
    return ["--db", str(tmp_path / "db"), "--model", str(minilm_folder), "--threads", "1"]


def invoke(*words: str) -> Result:
    return CliRunner().invoke(make_program(), list(words))


def test_documents_are_indexed_searched_changed_and_removed(rows: Path, words: list[str]) -> None:
    done = invoke("index", str(rows), *words)
    assert done.exit_code == 0, done.output
    assert done.output.startswith("Documents: 3 added, 0 updated, 0 unchanged, 0 removed. Wrote 3 chunks in ")

    found = invoke("search", "birds of the south pole", *words, "--where", "lang=en", "--top-k", "1")
    assert found.exit_code == 0, found.output
    assert "penguin  chunk 0, lang=en, year=2020" in found.output
    assert "volcano" not in found.output
    assert [line.split()[0] for line in found.output.splitlines()[-3:]] == ["stage", "coarse", "refine"]

    rows.write_text(json.dumps(ROWS[0]) + "\n")
    assert "0 added, 0 updated, 1 unchanged, 2 removed" in invoke("index", str(rows), *words, "--prune").output
    gone = invoke("index", *words, "--delete", "penguin", "--delete", "never")
    assert gone.output == "Removed 1 of 2 documents.\n"
    assert "Nothing was found." in invoke("search", "birds", *words).output


def test_search_prints_json_for_programs(rows: Path, words: list[str]) -> None:
    invoke("index", str(rows), *words)
    found = json.loads(invoke("search", "lava", *words, "--json", "--candidates", "2", "--top-k", "1").output)
    assert found["hits"][0]["document"] == "volcano"
    assert found["hits"][0]["metadata"] == {"lang": "en", "year": 2021}
    assert [(stage["name"], stage["candidates"]) for stage in found["stages"]] == [("coarse", 2), ("refine", 1)]


def test_a_reranker_is_the_third_stage(rows: Path, words: list[str], shelf: Shelf) -> None:
    invoke("index", str(rows), *words)
    folder = str(shelf.folder("cross-bert"))
    asked = ["search", "birds", *words, "--reranker", folder, "--rerank-candidates", "3", "--top-k", "2"]
    found = json.loads(invoke(*asked, "--json").output)
    assert [(stage["name"], stage["candidates"]) for stage in found["stages"]] == [
        ("coarse", 3),
        ("refine", 3),
        ("rerank", 2),
    ]
    with Reranker(folder, threads=1) as reranker:
        scores = reranker.score("birds", [row["text"] for row in ROWS])
    assert [hit["relevance"] for hit in found["hits"]] == pytest.approx(sorted(scores, reverse=True)[:2], abs=1e-3)
    missing = invoke(*asked[:-6], "--reranker", "./nothing-here")
    assert missing.exit_code == 1
    assert missing.stderr.count("\n") == 1


def test_what_could_not_be_indexed_is_named(rows: Path, words: list[str]) -> None:
    rows.write_text(rows.read_text() + "not json\n")
    done = invoke("index", str(rows), *words, "--prune")
    assert done.exit_code == 1
    assert "Documents: 3 added" in done.stdout
    assert "Not indexed: rows.jsonl:4: is not JSON" in done.stderr
    assert "Nothing was pruned" in done.stderr


def test_ctrl_c_keeps_what_was_written_and_says_so(
    rows: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(paths: object, columns: object) -> Iterator[Document]:
        yield Document("first", "It is written.")
        raise KeyboardInterrupt

    monkeypatch.setattr("anydim.retrieval.index._BATCH", 1)
    monkeypatch.setattr("anydim.cli.index.read_documents", interrupted)
    done = invoke("index", str(rows), *words)
    assert done.exit_code == 130
    assert done.stderr == "Stopped. 1 chunks are in the index; the same command goes on from there.\n"
    monkeypatch.undo()
    assert "Documents: 3 added" in invoke("index", str(rows), *words).output


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["index", "ROWS"], "--db is missing"),
        (["index", "--db", "DB"], "nothing to index"),
        (["index", "--db", "DB", "--prune", "--delete", "x"], "--prune without documents would empty the index"),
        (["index", "missing.jsonl", "--db", "DB"], "missing.jsonl does not exist"),
        (["index", "ROWS", "--db", "ftp://me:secret@host"], "--db must be a folder"),
        (["search", "x", "--db", "DB"], "there is no index named documents"),
        (["search", "x", "--db", "DB", "--top-k", "0"], "--top-k must be a whole number from 1 to 1000"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(
    rows: Path, words: list[str], tmp_path: Path, command: list[str], said: str
) -> None:
    places = {"ROWS": str(rows), "DB": str(tmp_path / "db")}
    done = invoke(*[places.get(word, word) for word in command], *words[2:])
    assert done.exit_code in (1, 2)
    assert said in done.stderr
    assert "secret" not in done.output
    assert done.stderr.count("\n") == 1


def test_an_unknown_field_is_answered_with_the_nearest(rows: Path, words: list[str]) -> None:
    invoke("index", str(rows), *words)
    done = invoke("search", "x", *words, "--where", "lnag=en")
    assert done.exit_code == 1
    assert "no document has a field 'lnag' (did you mean lang?); known: lang, year" in done.stderr

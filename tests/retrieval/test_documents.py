"""Files become documents; what cannot be one is named, and the rest goes on."""

import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anydim.errors import InvalidRequest
from anydim.retrieval.documents import Columns, Document, Refusal, checked, count_documents, read_documents


def read(*paths: Path, **columns: object) -> list[Document | Refusal]:
    return list(read_documents(paths, Columns(**columns)))


def test_lines_of_json_become_documents_with_metadata(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    rows = [{"id": "x", "text": "one", "year": 2020, "tags": ["a"]}, {"id": 7, "text": "two"}, {"text": "three"}]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert read(file) == [
        Document("x", "one", {"year": 2020, "tags": ["a"]}),
        Document("7", "two", {}),
        Document("a.jsonl:3", "three", {}),
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "cut off', "is not JSON"),
        ("[1]", "is not a JSON object"),
        ('{"id": "x"}', "has no text"),
        ('{"text": ""}', "has no text"),
        ('{"text": "  "}', "has no text"),
        ('{"text": 3}', "has no text in text"),
        ('{"text": "a", "id": [1]}', "neither text nor a whole number"),
        ('{"text": "a", "id": ""}', "has an empty id"),
        ('{"text": "a\\u0000b"}', "NUL"),
        ('{"text": "\\ud800"}', "is not JSON"),
    ],
)
def test_a_wrong_line_is_named_and_the_next_is_read(tmp_path: Path, line: str, reason: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(line + '\n{"text": "fine"}\n')
    refusal, document = read(file)
    assert isinstance(refusal, Refusal)
    assert refusal.where == "a.jsonl:1"
    assert reason in refusal.reason
    assert document == Document("a.jsonl:2", "fine", {})


def test_several_text_fields_are_joined(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"doi": "1", "title": "A title", "body": "A body", "lang": "en"}\n{"doi": "2", "body": "only"}\n')
    assert read(file, text=("title", "body"), id="doi") == [
        Document("1", "A title\n\nA body", {"lang": "en"}),
        Document("2", "only", {}),
    ]


def test_csv_numbers_are_numbers_and_ids_stay_text(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('id,text,year,ok\n007,"first, with comma",2020,true\n008,"two\nlines",2021,false\n')
    assert read(file) == [
        Document("007", "first, with comma", {"year": 2020, "ok": True}),
        Document("008", "two\nlines", {"year": 2021, "ok": False}),
    ]


def test_broken_csv_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("id,text\n1,a\n2,b,c,d\n")
    refusal = read(file)[-1]
    assert isinstance(refusal, Refusal)
    assert refusal.where == "a.csv"


def test_parquet_rows_become_documents(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    day = datetime.date(2020, 1, 2)
    pq.write_table(pa.table({"id": [1, 2], "text": ["one", None], "day": [day, day]}), file)
    document, refusal = read(file)
    assert document == Document("1", "one", {"day": "2020-01-02"})
    assert refusal == Refusal("a.parquet:2", "has no text")
    assert count_documents([file]) == 2


def test_a_folder_is_walked_in_order_of_names(tmp_path: Path) -> None:
    for name in ("b/two.md", "b/.hidden.md", "a.txt", ".git/x.txt", "c.bin", "b/three.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"text": "row"}' if name.endswith("l") else "intro\n\n## Title of it\n\nbody")
    assert [(entry.id, dict(entry.metadata)) for entry in read(tmp_path) if isinstance(entry, Document)] == [
        ("a.txt", {}),
        ("b/three.jsonl:1", {}),
        ("b/two.md", {"title": "Title of it"}),
    ]


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "b.txt").write_text("fine")
    assert read(tmp_path) == [Refusal("a.txt", "is not UTF-8 text"), Document("b.txt", "fine", {})]


@pytest.mark.parametrize(("name", "words"), [("missing", "does not exist"), ("a.pdf", "no file that can be read")])
def test_a_path_that_cannot_be_read_is_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "a.pdf").write_text("x")
    with pytest.raises(InvalidRequest, match=words):
        read(tmp_path / name)


def test_what_is_not_json_in_metadata_is_refused() -> None:
    assert isinstance(checked(Document("a", "text", {"x": object()})), Refusal)
    assert isinstance(checked(Document("a", "lone \ud800 surrogate")), Refusal)


def test_the_digest_is_of_text_and_metadata_alone() -> None:
    document = Document("a", "text", {"x": 1, "y": 2})
    assert document.digest == Document("b", "text", {"y": 2, "x": 1}).digest
    assert document.digest != Document("a", "text.", {"x": 1, "y": 2}).digest
    assert document.digest != Document("a", "text", {"x": 1, "y": 3}).digest

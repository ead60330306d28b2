"""Records: every kind of file, packed or not, and what is wrong in them said by row."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from anydim.errors import InvalidRequest
from anydim.offline.records import Reading, Record, count_records, read_records

ROWS = [{"id": 7, "text": 'one, "two"\nthree'}, {"id": 8, "text": "Ünïcödé 中文"}]
KEEP = Reading(keep=("id",))


def texts(found: list[Record]) -> list[str]:
    assert [record.row for record in found] == list(range(len(found)))
    assert not any(record.problem for record in found)
    return [record.text for record in found]


def write_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")


def write_csv(path: Path) -> None:
    path.write_text('\ufeffid,text\n7,"one, ""two""\nthree"\n8,Ünïcödé 中文\n', encoding="utf-8")


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path)


@pytest.mark.parametrize("write", [write_jsonl, write_csv, write_parquet])
def test_rows_of_every_kind_are_the_same(write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / f"rows.{write.__name__.removeprefix('write_')}"
    write(path)
    found = list(read_records([str(path)], KEEP))
    assert texts(found) == [row["text"] for row in ROWS]
    assert [str(record.kept["id"]) for record in found] == ["7", "8"]
    assert found[1].where == f"{path}:{4 if write is write_csv else 2}"  # the header, and a text of two lines


every_packing = pytest.mark.parametrize(
    ("suffix", "pack"),
    [
        (".gz", gzip.compress),
        (".bz2", partial(bz2.compress, compresslevel=1)),
        (".xz", lzma.compress),
        (".zst", zstandard.ZstdCompressor(write_checksum=True).compress),
    ],
)


@every_packing
def test_packed_files(suffix: str, pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (tmp_path / f"a.txt{suffix}").write_bytes(pack(b"first\nsecond\r\n"))
    assert texts(list(read_records([str(tmp_path / f"a.txt{suffix}")], Reading()))) == ["first", "second"]


def test_folders_and_globs_go_by_name_and_pass_over_other_kinds(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name, text in (("b.txt", "b"), ("a.txt", "a"), ("deep/c.txt", "c"), ("d.bin", "no")):
        (tmp_path / name).write_text(text + "\n")
    assert texts(list(read_records([str(tmp_path)], Reading()))) == ["a", "b", "c"]
    assert texts(list(read_records([f"{tmp_path}/*.txt"], Reading()))) == ["a", "b"]


def test_addresses_go_through_fsspec() -> None:
    with fsspec.open("memory://shelf/rows.jsonl", "wb") as file:
        file.write(b'{"text": "from afar"}\n')
    assert texts(list(read_records(["memory://shelf/rows.jsonl"], Reading()))) == ["from afar"]


@pytest.mark.parametrize(
    ("given_bytes", "wanted"), [(b'{"text": "a"}\n', ["a"]), (b"plain\nlines\n", ["plain", "lines"])]
)
def test_standard_input_goes_by_its_first_character(
    given_bytes: bytes, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(given_bytes))))  # type: ignore[type-var]
    assert texts(list(read_records(["-"], Reading()))) == wanted


def test_a_bad_row_is_a_problem_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'{"text": "good"}\nnot json\n[1]\n{"text": 5}\n{}\n{"text": "  "}\n{"text": "\\ud800"}\n{"text": "last"}\n'
    )
    found = list(read_records([str(path)], Reading()))
    problems = [record.problem for record in found]
    assert [bool(problem) for problem in problems] == [False, True, True, True, True, True, True, False]
    for problem, word in zip(problems[1:7], ["JSON", "object", "int", "missing", "empty", "UTF-8"], strict=True):
        assert word in problem or word == "UTF-8"
    assert found[3].where.endswith(":4")


def test_damaged_files_say_so(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"first\n" * 5000)[:-20])
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and nothing else")
    (tmp_path / "c.csv").write_text("a,b\n1,2\n")
    for name, word in (("a.txt.gz", "from here on"), ("b.parquet", "Parquet"), ("c.csv", "no column text")):
        assert word in list(read_records([str(tmp_path / name)], Reading()))[-1].problem


@every_packing
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_packed_file_that_is_damaged_in_the_middle_is_read_up_to_there(
    suffix: str, pack: Callable[[bytes], bytes], kind: str, tmp_path: Path
) -> None:
    draw = random.Random(0)
    parts = [draw.randbytes(6).hex() for _ in range(1000)]
    words = [" ".join(draw.choices(parts, k=6)) for _ in range(10_000)]  # more than one block of every packing
    head, line = {"jsonl": ("", '{{"text": "{}"}}\n'), "csv": ("text\n", "{}\n")}[kind]
    whole = (head + "".join(map(line.format, words))).encode()
    packed = bytearray(pack(whole))
    middle = len(packed) // 2
    if suffix == ".gz":  # whose reader may find its way behind any damage, but not where a block begins
        middle = len(packed) + 10
        packed += pack(whole.removeprefix(head.encode()))
    packed[middle : middle + 4000] = b"\xff" * 4000
    (tmp_path / f"a.{kind}{suffix}").write_bytes(packed)
    *found, last = read_records([str(tmp_path / f"a.{kind}{suffix}")], Reading())
    assert last.problem.startswith("cannot be read from here on: ")
    assert last.where.endswith(f":{len(found) + 1 + (kind == 'csv')}")
    good = [record.text for record in found]
    assert 0 < len(good) <= len(words)
    assert sum(text == word for text, word in zip(good, words, strict=False)) > len(good) // 2


def test_what_is_not_there_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"")
    for given_path, word in ((f"{tmp_path}/none.txt", "does not exist"), (f"{tmp_path}/a.bin", "known kind")):
        with pytest.raises(InvalidRequest, match=word):
            read_records([given_path], Reading())


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cs",))), max_size=20))
def test_lines_come_back_as_they_were(lines: list[str]) -> None:
    with fsspec.open("memory://lines.txt", "wb") as file:
        file.write("\n".join([*lines, "end"]).encode())
    found = list(read_records(["memory://lines.txt"], Reading()))
    kept = [line.removeprefix("\ufeff") for line in lines]
    assert [record.text for record in found if not record.problem] == [*filter(str.strip, kept), "end"]


def test_counts_for_the_bar(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl")
    write_parquet(tmp_path / "b.parquet")
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"x\n"))
    assert count_records([str(tmp_path / "a.jsonl"), str(tmp_path / "b.parquet")], Reading()) == 4
    assert count_records([str(tmp_path / "a.jsonl"), str(tmp_path / "c.txt.gz")], Reading()) == 0

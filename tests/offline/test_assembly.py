"""What is put together on the way has the bytes of what is put together at the end, and gives way to it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anydim.offline.assembly import Assembly
from anydim.offline.records import Record
from anydim.offline.shards import Parts, Width, encode_shard, vector_columns
from anydim.types import Output, OutputDtype

KEPT: tuple[Any, ...] = ("one", 2, 2.5, None, True)
STREAMED = ["out.parquet", "out.arrow", "out.jsonl"]


def shard(number: int, kept: object, rows: int = 3) -> Any:
    records = [Record(rows * number + place, "", (f"{place}",), kept={"id": kept}) for place in range(rows)]
    outputs = [Output(np.full(4, number + place, np.float32)) for place in range(rows)]
    return encode_shard(records, range(rows), vector_columns(outputs, Width(OutputDtype.FLOAT32, 4)), [])


def begin(folder: Path, name: str) -> Parts:
    parts = Parts(folder / name)
    parts.open({}, resume=False, overwrite=True)
    return parts


def at_the_end(folder: Path, name: str, shards: Sequence[Any]) -> tuple[bytes, str | None]:
    parts = begin(folder, name)
    for number, data in enumerate(shards):
        parts.put(number, data)
    digest = parts.assemble(len(shards), 3 * len(shards))
    return parts.output.read_bytes(), digest


def on_the_way(folder: Path, name: str, shards: Sequence[Any], order: Sequence[int]) -> tuple[bytes, str | None]:
    parts = begin(folder, name)
    with parts.growing():
        for number in order:
            parts.put(number, shards[number])
        digest = parts.assemble(len(shards), 3 * len(shards))
    return parts.output.read_bytes(), digest


@pytest.mark.parametrize("name", [*STREAMED, "out.npy"])
@given(data=st.data())
def test_the_bytes_are_the_same_whatever_comes_when(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    kept = data.draw(st.lists(st.sampled_from(KEPT), min_size=1, max_size=5))
    order = data.draw(st.permutations(range(len(kept))))
    folder, shards = tmp_path_factory.mktemp("parts"), [shard(number, one) for number, one in enumerate(kept)]
    content, digest = on_the_way(folder, name, shards, order)
    assert (content, digest) == at_the_end(folder, name, shards)
    assert digest == hashlib.sha256(content).hexdigest()
    assert not (folder / f"{name}.tmp").exists()


@pytest.mark.parametrize("name", STREAMED)
def test_shards_are_in_the_file_before_the_last_one_comes(tmp_path: Path, name: str) -> None:
    tables: list[Any] = [pa.table({"row": [number], "text": ["x" * (4 << 20)]}) for number in range(3)]
    asked = [threading.Event() for _ in tables]

    def table(number: int) -> Any:
        asked[number].set()
        return tables[number]

    made = tmp_path / name
    assembly = Assembly(made, made.suffix, table)
    assembly.add(0)
    assembly.add(1)
    assert asked[1].wait(30)
    assert not asked[2].is_set()
    assembly.add(2)
    assert assembly.finish(3) == hashlib.sha256(made.read_bytes()).hexdigest()


def test_a_job_that_stops_leaves_no_half_file(tmp_path: Path) -> None:
    parts = begin(tmp_path, "out.parquet")

    def stop() -> None:
        with parts.growing():
            parts.put(0, shard(0, "a"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet.parts"]


def test_what_goes_wrong_on_the_way_is_done_again_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = begin(tmp_path, "out.parquet")
    table, calls = parts._table, []

    def fails_once(number: int) -> Any:
        calls.append(number)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return table(number)

    monkeypatch.setattr(parts, "_table", fails_once)
    with parts.growing():
        for number in range(3):
            parts.put(number, shard(number, "a"))
        parts.assemble(3, 9)
    assert pq.read_table(parts.output).column("row").to_pylist() == list(range(9))

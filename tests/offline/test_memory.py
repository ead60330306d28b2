"""A job's memory does not grow with its input: what it holds is counted for few rows and for eight times as many."""

from __future__ import annotations

import gc
import gzip
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from anydim import Embedder
from anydim.offline.embed import EmbedJob, EmbedWork
from anydim.offline.job import Done, run_job
from anydim.offline.records import Reading, Record, read_records
from anydim.offline.shards import Parts, Width, encode_shard, vector_columns
from anydim.types import Output, OutputDtype
from tests.shelf import Shelf

MIB = 1 << 20
FEW, TIMES = 240, 8
SHARD = 40
KEPT = "kept along " * 20


@pytest.fixture(scope="module")
def embedder(shelf: Shelf) -> Iterator[Embedder]:
    with Embedder(str(shelf.folder("qwen3")), dtype="float32", show_progress=False) as opened:
        yield opened


def rows(count: int) -> Iterator[dict[str, Any]]:
    """Short texts; every third row has none."""
    return ({"id": f"{n} {KEPT}", "text": f"text {n}" if n % 3 else ""} for n in range(count))


def write_jsonl(path: Path, count: int) -> None:
    with gzip.open(path, "wt") if path.suffix == ".gz" else path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows(count))


def write_csv(path: Path, count: int) -> None:
    with path.open("w") as file:
        file.write("id,text\n")
        file.writelines(f"{row['id']},{row['text']}\n" for row in rows(count))


def write_parquet(path: Path, count: int) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows(count))), path, row_group_size=FEW)  # larger ones have a test below


@pytest.mark.parametrize(
    ("name", "write", "output"),
    [
        ("in.jsonl", write_jsonl, "out.parquet"),
        ("in.jsonl.gz", write_jsonl, "out.npy"),
        ("in.csv", write_csv, "out.jsonl"),
        ("in.parquet", write_parquet, "out.arrow"),
    ],
)
def test_what_a_job_holds_at_most_does_not_depend_on_its_rows(
    embedder: Embedder, tmp_path: Path, name: str, write: Callable[[Path, int], None], output: str
) -> None:
    def most(count: int, resume: bool = False) -> int:
        """Bytes of Python's objects and of Arrow's at their worst moment."""
        folder = tmp_path / str(count)
        folder.mkdir(exist_ok=True)
        write(folder / name, count)
        reading = Reading(keep=("id",))
        job = EmbedJob(
            inputs=[str(folder / name)],
            output=folder / output,
            reading=reading,
            shard_texts=SHARD,
            resume=resume,
            overwrite=not resume,
        )
        arrows = 0

        def look(done: Done) -> None:
            nonlocal arrows
            arrows = max(arrows, pa.total_allocated_bytes())
            if not resume and count > FEW and done.rows > count - 2 * SHARD:
                raise KeyboardInterrupt

        gc.collect()
        tracemalloc.start()
        try:
            done = run_job(EmbedWork(embedder, job), job, look)
            assert done.failed == count // 3
        except KeyboardInterrupt:
            assert count > FEW
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found + arrows

    most(FEW)  # what is imported and cached once does not count
    (tmp_path / str(FEW) / output).unlink()
    few = most(FEW)
    # The interpreter's own table of names may grow meanwhile, at most once.
    assert min(most(TIMES * FEW), most(TIMES * FEW)) < 1.3 * few + MIB // 2
    assert most(TIMES * FEW, resume=True) < 1.3 * few + MIB // 2  # the scan of what is there, and the last step


@pytest.mark.parametrize(
    ("output", "part"),
    [("out.parquet", 0.5), ("out.jsonl", 0.5), ("out.npy", 0.5), ("out.arrow", 0.5), ("out.lance", 0.8)],
)  # Lance has threads and buffers of its own
def test_putting_the_shards_together_takes_the_memory_of_a_few(tmp_path: Path, output: str, part: float) -> None:
    count, width, parts = 64, 256, Parts(tmp_path / output)
    parts.open({}, resume=False, overwrite=False)
    block = [Output(np.random.default_rng(place).random(width, np.float32)) for place in range(1024)]
    columns = vector_columns(block, Width(OutputDtype.FLOAT32, width))
    for number in range(count):
        records = [Record(len(block) * number + place, "", ("a",)) for place in range(len(block))]
        parts.put(number, encode_shard(records, range(len(block)), columns, []))
    process, seen, table = psutil.Process(), [0], parts._table

    def watched(number: int) -> Any:
        seen.append(process.memory_info().rss)
        return table(number)

    parts._table = watched  # type: ignore[method-assign]
    parts.assemble(2, 2 * len(block))  # what is imported once does not count
    seen[:] = [process.memory_info().rss]
    parts.assemble(count, count * len(block))
    seen.append(process.memory_info().rss)
    files = parts.output.rglob("*") if parts.output.is_dir() else [parts.output]
    assert sum(file.stat().st_size for file in files) >= 0.9 * count * MIB
    assert max(seen) - seen[0] < part * count * MIB


def test_one_giant_row_group_is_read_piece_by_piece(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    texts = [draw.bytes(1024).hex() for _ in range(32_000)]
    table = pa.table({"text": texts, "other": texts})
    file = tmp_path / "in.parquet"
    pq.write_table(table, file, row_group_size=len(texts), compression="none", use_dictionary=False)
    del table
    process, records = psutil.Process(), read_records([str(file)], Reading())
    before, most = process.memory_info().rss, 0
    for place, (record, text) in enumerate(zip(records, texts, strict=True)):
        assert record.text == text
        if place % 100 == 0:
            most = max(most, process.memory_info().rss - before)
    assert file.stat().st_size > 120 * MIB
    assert most < 40 * MIB


def test_a_job_has_the_libraries_keep_little_unless_the_environment_says_otherwise() -> None:
    program = "import os, sys\nfrom anydim.cli.main import main\nassert 'torch' not in sys.modules\n"
    program += "sys.argv[1:] = ['embed', 'no-such-file', '-o', 'out.npy']\ntry: main()\nexcept SystemExit: pass\n"
    program += "print(os.environ['ONEDNN_PRIMITIVE_CACHE_CAPACITY'], os.environ['LRU_CACHE_CAPACITY'])"
    others = {name: value for name, value in os.environ.items() if not name.endswith("_CACHE_CAPACITY")}
    told = {**others, "LRU_CACHE_CAPACITY": "7"}
    found = subprocess.run([sys.executable, "-c", program], env=told, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["128", "7"]

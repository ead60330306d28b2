"""Does the memory of `anydim embed` grow with its input? The real command on more and more rows, its processes watched.

Run: python -m benchmarks.offline_memory [--rows 20000 80000 320000] [--inputs jsonl csv parquet] [--outputs parquet]
     [--texts mixed] [--failing 0.1] [--out FILE]

Every case is a process of its own, from files of short fresh texts to a file of vectors, on the CPU with a model of
random weights that is small enough to be quick. Ten times a second the resident memory of the process and of its
children is summed; `peak_mib` is the most of that. A file that is mapped counts where its pages are in memory.
`growth_mib` is what the case with the most rows takes more than that with the fewest. Parquet files are one row group.

Texts are of one length by default, so that batches have few shapes. With --texts mixed they have nearly all shapes, and
the libraries behind torch on a CPU keep something for each: oneDNN up to 1024 compiled products, and malloc its gaps.
Needs the test extra.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any, Final

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from benchmarks import report, shapes
from benchmarks.corpus import Corpus

_LOOK_SECONDS: Final = 0.1
_MIB: Final = 1 << 20
_FILES: Final = 1000  # rows of each file of a folder
_WORDS: Final = ("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school")
"""Words of one token each."""

Rows = Iterator[dict[str, Any]]


def rows(count: int, texts: str, failing: float) -> Rows:
    """So many rows of short texts, no two of them the same, of one length or of many; a part of them has no text."""
    sentences, draw = Corpus("en").sentences, random.Random()
    for number in range(count):
        text = " ".join(draw.choices(_WORDS, k=16)) if texts == "alike" else f"{number} {draw.choice(sentences)}"
        yield {"id": f"row {number}", "text": "" if draw.random() < failing else text}


def write_jsonl(file: IO[bytes], found: Rows) -> None:
    """An object a line."""
    for row in found:
        file.write(json.dumps(row).encode() + b"\n")


def write_csv(file: IO[bytes], found: Rows) -> None:
    """A header, and a record a row."""
    lines: list[str] = []
    writer = csv.writer(_Lines(lines))
    writer.writerow(["id", "text"])
    for row in found:
        writer.writerow(row.values())
        file.write("".join(lines).encode())
        lines.clear()


class _Lines:
    """What a csv.writer writes, in a list."""

    def __init__(self, lines: list[str]) -> None:
        self.write = lines.append


def write_parquet(file: IO[bytes], found: Rows) -> None:
    """One row group."""
    table = pa.Table.from_pylist(list(found))
    pq.write_table(table, file, row_group_size=table.num_rows)


def write_folder(folder: Path, found: Rows) -> None:
    """Many small files."""
    folder.mkdir()
    for number in itertools.count():
        part = list(itertools.islice(found, _FILES))
        if not part:
            return
        with (folder / f"{number:06}.jsonl").open("wb") as file:
            write_jsonl(file, iter(part))


_WRITERS: Final[MappingProxyType[str, Callable[[IO[bytes], Rows], None]]] = MappingProxyType(
    {"jsonl": write_jsonl, "csv": write_csv, "parquet": write_parquet}
)
_PACKERS: Final[MappingProxyType[str, Callable[..., Any]]] = MappingProxyType({"gz": gzip.open, "zst": zstandard.open})
INPUTS: Final = (*_WRITERS, "jsonl.gz", "jsonl.zst", "folder")
OUTPUTS: Final = ("parquet", "jsonl", "npy", "arrow", "lance")


def write(kind: str, folder: Path, found: Rows) -> Path:
    """An input of that kind, and its name."""
    path = folder / ("in" if kind == "folder" else f"in.{kind}")
    if kind == "folder":
        write_folder(path, found)
        return path
    name, _, packed = kind.partition(".")
    with _PACKERS[packed](path, "wb") if packed else path.open("wb") as file:
        _WRITERS[name](file, found)
    return path


def watched(words: Sequence[str]) -> dict[str, float]:
    """Run a command to its end: the most memory that it and its children held together, and its seconds.

    Raises:
        RuntimeError: it failed.
    """
    began, most = time.perf_counter(), 0
    with tempfile.TemporaryFile() as said:
        running = subprocess.Popen(words, stdout=said, stderr=said, env={**os.environ, "ANYDIM_LOAD_FORMAT": "dummy"})
        process = psutil.Process(running.pid)
        while running.poll() is None:
            most = max(most, _resident(process))
            time.sleep(_LOOK_SECONDS)
        if running.returncode not in (0, 1):  # 1: rows without a vector
            said.seek(0)
            raise RuntimeError(f"{' '.join(words)} failed: {said.read().decode()}")
    return {"peak_mib": most / _MIB, "seconds": time.perf_counter() - began}


def _resident(process: psutil.Process) -> int:
    total = 0
    try:
        for each in [process, *process.children(recursive=True)]:
            total += each.memory_info().rss
    except psutil.NoSuchProcess:
        return 0
    return total


def measure(folder: Path, kind: str, output: str, count: int, options: argparse.Namespace) -> dict[str, Any]:
    """One case, in a folder that is empty again afterwards."""
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        source = write(kind, Path(scratch), rows(count, options.texts, options.failing))
        target = Path(scratch) / f"out.{output}"
        words = [sys.executable, "-m", "anydim", "embed", str(source), "-o", str(target), "--model", str(folder)]
        words += ["--device", "cpu", "--dtype", "float32", "--keep-columns", "id", "--no-enable-tqdm"]
        words += ["--shard-texts", str(options.shard_texts)]
        figures = watched(words)
        size = sum(file.stat().st_size for file in target.rglob("*")) if target.is_dir() else target.stat().st_size
    row = {"in": kind, "out": output, "texts": options.texts, "rows": count, "output_mib": size / _MIB, **figures}
    print(row, flush=True)
    return row


def growth(found: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What the most rows take more than the fewest, for each pair of input and output."""
    for case, of_case in itertools.groupby(found, key=lambda row: (row["in"], row["out"])):
        peaks = [row["peak_mib"] for row in of_case]
        more = {"growth_mib": peaks[-1] - peaks[0], "growth": peaks[-1] / peaks[0] - 1}
        yield {"case": " to ".join(case), **more}


def main() -> None:
    """Parse the command line, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 80_000, 320_000])
    parser.add_argument("--inputs", nargs="+", choices=INPUTS, default=["jsonl", "csv", "parquet"])
    parser.add_argument("--outputs", nargs="+", choices=OUTPUTS, default=["parquet"])
    parser.add_argument("--texts", choices=("alike", "mixed"), default="alike", help="of one length, or of many")
    parser.add_argument("--failing", type=float, default=0.0, help="part of the rows that hold no text")
    parser.add_argument("--shard-texts", type=int, default=8192)
    parser.add_argument("--scratch", type=Path, help="where the files go meanwhile")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    from tests.qwen_tokenizer import write_qwen3_tokenizer

    with ExitStack() as stack:
        folder = shapes.write("tiny", Path(stack.enter_context(tempfile.TemporaryDirectory())))
        write_qwen3_tokenizer(folder / "tokenizer.json")
        cases = itertools.product(options.inputs, options.outputs, sorted(options.rows))
        found = [measure(folder, kind, output, count, options) for kind, output, count in cases]
    report.publish("job-memory-tiny", [*found, *growth(found)], options.out)


if __name__ == "__main__":
    main()

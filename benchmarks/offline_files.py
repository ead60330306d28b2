"""A file of texts to a file of vectors: `anydim embed` against sentence-transformers, or against its own engine.

Run: python -m benchmarks.offline_files [--model starter] [--texts 10000] [--dtype float32 bfloat16] [--out FILE]
     python -m benchmarks.offline_files --shape 4b [--texts 65536] [--out FILE]

Without a shape both are whole processes on the CPU, from the start of Python to the written file, the model's loading
included: `anydim embed`, and a script that reads the same lines, calls SentenceTransformer.encode as it is, and saves a
matrix. They take turns. Wall time, CPU time, peak memory and the machine's load are those of each process.

With a shape (random weights) the job runs in this process, and the engine gets the same texts' tokens, shard by shard,
without files: what files cost. The texts are fresh real sentences from tests/data. Needs the test extra.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq

from anydim import Embedder
from anydim.intake.request import EmbedRequest
from anydim.offline.embed import EmbedJob, EmbedWork
from anydim.offline.job import run_job
from anydim.offline.records import read_records
from benchmarks import report, shapes
from benchmarks.corpus import Corpus
from benchmarks.texts import folder_of

_BAR_CPU: Final = 1.2  # times sentence-transformers' speed
_BAR_ENGINE: Final = 0.97  # of the engine's own figure
_PASSES: Final = 3
_RIVAL: Final = "sentence-transformers"


def write_corpus(path: Path, count: int) -> None:
    """So many fresh texts as JSON lines: one to five interface sentences, and one article in ten."""
    corpus, draw = Corpus("en"), random.Random()
    with path.open("w") as file:
        for number in range(count):
            lines = corpus.pages(1, 1) if draw.random() < 0.1 else corpus.lines(draw.randint(1, 3))
            file.write(json.dumps({"id": number, "text": " ".join(lines)}) + "\n")


def rival(source: Path, output: Path, folder: str, dtype: str) -> None:
    """What the rival's process does."""
    import torch
    from sentence_transformers import SentenceTransformer

    with source.open() as file:
        texts = [json.loads(line)["text"] for line in file]
    model = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": getattr(torch, dtype)})
    vectors = model.encode(texts, normalize_embeddings=True, show_progress_bar=False, convert_to_tensor=True)
    np.save(output, vectors.float().numpy())


def process(words: Sequence[str]) -> dict[str, Any]:
    """Run a command to its end: seconds of wall and CPU, and the most memory that it held.

    Raises:
        RuntimeError: it failed.
    """
    load = os.getloadavg()[0]
    began = time.perf_counter()
    running = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _, status, used = os.wait4(running.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise RuntimeError(f"{words[:4]} failed: {running.stderr.read() if running.stderr else ''}")
    return {
        "wall_s": seconds,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mib": used.ru_maxrss / 1024,
        "load_before": load,
    }


def whole_processes(model: str, count: int, dtype: str, rounds: int) -> list[dict[str, Any]]:
    """One row an engine: medians of the rounds, in which they take turns."""
    folder = str(folder_of(model))
    runs: dict[str, list[dict[str, Any]]] = {"anydim embed": [], _RIVAL: []}
    with tempfile.TemporaryDirectory() as scratch:
        source, ours, theirs = (Path(scratch) / name for name in ("in.jsonl", "out.parquet", "out.npy"))
        words = {
            "anydim embed": [
                *(sys.executable, "-m", "anydim", "embed", str(source), "-o", str(ours), "--overwrite"),
                *("--model", folder, "--dtype", dtype, "--device", "cpu", "--truncate", "end"),
            ],
            _RIVAL: [
                *(sys.executable, "-m", "benchmarks.offline_files"),
                *("--rival", str(source), str(theirs), folder, dtype),
            ],
        }
        for turn in range(rounds):
            write_corpus(source, count)
            for name in list(words) if turn % 2 == 0 else list(words)[::-1]:
                runs[name].append(process(words[name]))
                print(name, runs[name][-1], flush=True)
        agreement = _agreement(ours, theirs)
    rows: list[dict[str, Any]] = [
        {"dtype": dtype, "texts": count, "engine": name, "rounds": rounds}
        | {key: statistics.median(run[key] for run in own) for key in own[0]}
        for name, own in runs.items()
    ]
    for key in ("wall", "cpu"):
        rows[0][f"{key}_ratio"] = rows[1][f"{key}_s"] / rows[0][f"{key}_s"]
    rows[0] |= {"least_cosine": agreement, "bar": "met" if rows[0]["wall_ratio"] >= _BAR_CPU else "missed"}
    return rows


def _agreement(ours: Path, theirs: Path) -> float:
    """The least cosine of the last round's vectors."""
    a_ND = np.array(pq.read_table(ours).column("embedding").to_pylist(), np.float32)
    return float((a_ND * np.load(theirs)).sum(axis=1).min())


def against_engine(shape: str, count: int, settings: dict[str, Any], shard_texts: int) -> list[dict[str, Any]]:
    """The job on a file, and the engine alone on the same tokens; tokens a second without the model's loading."""
    from tests.qwen_tokenizer import write_qwen3_tokenizer

    with tempfile.TemporaryDirectory() as scratch:
        folder = shapes.write(shape, Path(scratch))
        write_qwen3_tokenizer(folder / "tokenizer.json")
        source = Path(scratch) / "in.jsonl"
        write_corpus(source, count)
        began = time.perf_counter()
        with Embedder(str(folder), load_format="dummy", **settings) as embedder:
            loaded = time.perf_counter() - began
            job = EmbedJob(inputs=[str(source)], output=Path(scratch) / "out.parquet", shard_texts=shard_texts)
            _job(embedder, job)  # what is compiled or allocated once is not measured
            files = [_job(embedder, job) for _ in range(_PASSES)]
            engine = [_engine(embedder, job) for _ in range(_PASSES)]
    rows: list[dict[str, Any]] = [
        {"case": name, "texts": count, "tokens": tokens, "tokens_per_s": statistics.median(rates)}
        for name, rates, tokens in (
            ("anydim embed, file to file", [rate for rate, _ in files], files[0][1]),
            ("the engine on the same tokens", [rate for rate, _ in engine], engine[0][1]),
        )
    ]
    rows[0]["of_engine"] = rows[0]["tokens_per_s"] / rows[1]["tokens_per_s"]
    rows[0]["bar"] = "met" if rows[0]["of_engine"] >= _BAR_ENGINE else "missed"
    return [*rows, {"case": "load", "seconds": loaded}]


def _job(embedder: Embedder, job: EmbedJob) -> tuple[float, int]:
    """Tokens a second of the whole job, and its tokens."""
    job = replace(job, overwrite=True)
    done = run_job(EmbedWork(embedder, job), job, lambda done: None)
    assert not done.failed, "a failed row is no result"
    return done.tokens / done.seconds, done.tokens


def _engine(embedder: Embedder, job: EmbedJob) -> tuple[float, int]:
    """The same of the engine alone, one shard after another, each waiting while the one before runs."""
    texts = [record.text for record in read_records(job.inputs, job.reading)]
    items = embedder.intake.prepare(EmbedRequest(inputs=texts))
    shards = [
        sorted(items[start : start + job.shard_texts], key=lambda item: -len(item.ids))
        for start in range(0, len(items), job.shard_texts)
    ]
    began = time.perf_counter()
    for future in [embedder.submit(shard) for shard in shards]:
        assert all(output.error is None for output in future.result()), "a failed text is no result"
    tokens = sum(len(item.ids) for item in items)
    return tokens / (time.perf_counter() - began), tokens


def main() -> None:
    """Parse the command line, measure, publish."""
    if sys.argv[1:2] == ["--rival"]:
        source, output, folder, dtype = sys.argv[2:]
        rival(Path(source), Path(output), folder, dtype)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="starter", help="starter, minilm or a folder")
    parser.add_argument("--shape", choices=shapes.NAMES, help="random weights of a shape, against the engine alone")
    parser.add_argument("--device", default="auto", help="with a shape")
    parser.add_argument("--texts", type=int, help="10000, or 65536 with a shape")
    parser.add_argument("--shard-texts", type=int, default=8192, help="with a shape")
    parser.add_argument("--dtype", nargs="*", help="float32 and bfloat16, or bfloat16 with a shape")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if options.shape:
        for dtype in options.dtype or ["bfloat16"]:
            settings = {"device": options.device, "dtype": dtype}
            rows += against_engine(options.shape, options.texts or 65536, settings, options.shard_texts)
        report.publish(f"files-{options.shape}", rows, options.out)
        return
    for dtype in options.dtype or ["float32", "bfloat16"]:
        rows += whole_processes(options.model, options.texts or 10000, dtype, options.rounds)
    report.publish(f"files-{Path(options.model).name}", rows, options.out)


if __name__ == "__main__":
    main()

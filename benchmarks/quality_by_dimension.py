"""How good are vectors at each dimension and in each output type? nDCG@10 and Spearman, model by model, task by task.

Run: python -m benchmarks.quality_by_dimension --models minilm starter [--out FOLDER]
     python -m benchmarks.quality_by_dimension --models Qwen/Qwen3-Embedding-0.6B Qwen/Qwen3-Embedding-4B \
         --tasks mteb/scifact mteb/nfcorpus mteb/stsbenchmark-sts [--max-tokens 512]

A task is a corpus that the project builds itself (science, tools, manuals: search; trees: pairs of docstrings and how
near they lie in the source tree), a data set on the hub in MTEB's layout, or a local folder of that layout: corpus,
queries and qrels/test for search, test with sentence1, sentence2 and score for pairs; JSONL, packed or not, TSV or
Parquet. Vectors are kept in --work, and each figure is written when it is there: a run that was stopped goes on.
Needs the test extra.

Legend: N documents, D full dimension.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from anydim import Embedder
from anydim.offline.records import OneText, Reading, read_records
from anydim.quality.forms import DTYPES, Form, Rows, allowed_dims
from anydim.quality.labels import read_labels
from anydim.quality.outcome import Task
from anydim.quality.pairs import Pairs
from anydim.quality.ranking import Ranking
from benchmarks import report
from benchmarks.docstrings import pages
from benchmarks.embedded import CORPORA
from benchmarks.texts import folder_of

_PART: Final = 512  # texts of a call
_FILES: Final = ("*.jsonl", "*.jsonl.gz", "*.parquet", "*.tsv", "*.csv")
_PAIRS: Final = 600
_OWN: Final = (*CORPORA, "trees")


@dataclass(frozen=True, slots=True)
class Texts:
    """A task before it is embedded: two lists of texts, and what is known of them.

    Attributes:
        left: documents, or the first texts of pairs.
        right: queries, or the second ones.
        labels: of each query; empty for pairs.
        scores: of each pair; empty for search.
    """

    left: list[str]
    right: list[str]
    labels: list[dict[int, int]]
    scores: list[float]

    @property
    def kinds(self) -> tuple[str | None, str | None]:
        """The input types of both lists; pairs are alike."""
        return ("document", "query") if self.labels else (None, None)


def texts_of(task: str, count: int) -> Texts:
    """The texts behind a name: a corpus of ours, a local folder, or a data set on the hub."""
    if task == "trees":
        return _trees(count)
    if task in CORPORA:
        found = CORPORA[task](count)
        labels = [{place: 1} for place in range(len(found))]
        return Texts([page.text for page in found], [page.question for page in found], labels, [])
    folder = Path(task)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(task, repo_type="dataset"))
    return _in_folder(folder)


def _trees(count: int) -> Texts:
    """Pairs of docstrings, and how many folders of their places agree: half of them neighbours, half drawn freely."""
    found = sorted(pages(count), key=lambda page: page.name)
    draw = random.Random(0)
    places = [draw.randrange(len(found) - 8) for _ in range(_PAIRS)]
    others = [place + draw.randint(1, 8) if place % 2 else draw.randrange(len(found)) for place in places]
    pairs = [(found[place], found[other]) for place, other in zip(places, others, strict=True) if place != other]
    scores = [float(_shared(left.name, right.name)) for left, right in pairs]
    return Texts([left.text for left, _ in pairs], [right.text for _, right in pairs], [], scores)


def _shared(first: str, second: str) -> int:
    """Leading parts of two paths that agree."""
    parts = list(zip(first.partition(":")[0].split("/"), second.partition(":")[0].split("/"), strict=False))
    return next((place for place, (left, right) in enumerate(parts) if left != right), len(parts))


def _in_folder(folder: Path) -> Texts:
    """A data set in MTEB's layout."""
    corpus = _file(folder, "corpus")
    if corpus is None:
        pairs = _file(folder, "test") or _missing(folder, "corpus or test")
        rows = list(_rows(pairs, "sentence1", ("sentence2", "score")))
        return Texts(
            [text for text, _ in rows],
            [str(kept["sentence2"]) for _, kept in rows],
            [],
            [float(kept["score"]) for _, kept in rows],
        )
    queries = _file(folder, "queries") or _missing(folder, "queries")
    qrels = _file(folder, "qrels/test") or _file(folder, "qrels") or _missing(folder, "qrels")
    documents = [(kept.get("title"), text, kept["_id"]) for text, kept in _rows(corpus, "text", ("_id", "title"))]
    asked = [(text, str(kept["_id"])) for text, kept in _rows(queries, "text", ("_id",))]
    labels = read_labels(_as_lines(qrels), [name for _, name in asked], [str(name) for _, _, name in documents])
    kept = [place for place, known in enumerate(labels) if known]
    return Texts(
        [" ".join(filter(None, (title, text))) for title, text, _ in documents],
        [asked[place][0] for place in kept],
        [labels[place] for place in kept],
        [],
    )


def _file(folder: Path, name: str) -> Path | None:
    """The file of a name, with whatever end; a part of a folder of that name counts too."""
    found = [path for pattern in _FILES for path in folder.rglob(pattern)]
    names = {path: path.relative_to(folder).as_posix() for path in sorted(found)}
    at = [path for path, place in names.items() if place.split(".")[0].split("-0")[0].endswith(name)]
    inside = [path for path, place in names.items() if f"/{name}/" in f"/{place}"]
    return next(iter([*at, *inside]), None)


def _missing(folder: Path, what: str) -> Path:
    raise SystemExit(f"{folder} has no {what} in MTEB's layout")


def _rows(file: Path, text: str, keep: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for record in read_records([str(file)], Reading(take=OneText(text), keep=keep)):
        if not record.problem:
            yield record.text, record.kept


def _as_lines(qrels: Path) -> Path:
    """Labels as a text file; Parquet is written anew beside it."""
    if qrels.suffix != ".parquet":
        return qrels
    import pyarrow.parquet as pq

    lines = qrels.with_suffix(".lines.jsonl")
    lines.write_text("\n".join(json.dumps(row) for row in pq.read_table(qrels).to_pylist()))
    return lines


def vectors_of(texts: list[str], kind: str | None, open_model: Callable[[], Embedder], file: Path) -> Tensor:
    """Full vectors, float32 (N, D); from the file where they are, else written there part by part."""
    if not file.exists():
        embedder = open_model()
        width = embedder.card.width
        file.parent.mkdir(parents=True, exist_ok=True)
        parts = []
        for start in range(0, len(texts), _PART):
            part = file.with_name(f"{file.stem}.{start}.part.npy")
            if not part.exists():
                rows = embedder.embed(
                    texts[start : start + _PART], output_dim=width, input_type=kind, truncate="end", show_progress=False
                )
                unfinished = part.with_suffix(".tmp.npy")
                np.save(unfinished, rows)
                unfinished.replace(part)
                print(f"{file.stem}: {min(start + _PART, len(texts)):,} of {len(texts):,}", flush=True)
            parts.append(part)
        np.save(file.with_suffix(".tmp.npy"), np.concatenate([np.load(part) for part in parts]))
        file.with_suffix(".tmp.npy").replace(file)
        for part in parts:
            part.unlink()
    return torch.from_numpy(np.load(file))


def task_of(texts: Texts, left_ND: Tensor, right_ND: Tensor) -> Task:
    """What is measured."""
    if texts.labels:
        return Ranking(queries=Rows(right_ND), documents=Rows(left_ND), labels=texts.labels)
    return Pairs(first=Rows(left_ND), second=Rows(right_ND), scores_P=np.array(texts.scores))


class Ledger:
    """Figures that are there already, one JSON line each."""

    def __init__(self, file: Path) -> None:
        """Read what an earlier run wrote."""
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        lines = file.read_text().splitlines() if file.exists() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines if line.endswith("}")]

    def value(self, key: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The figure of a key, measured where it is not there."""
        found = next((row for row in self.rows if key.items() <= row.items()), None)
        if found is None:
            found = key | measure()
            self.rows.append(found)
            with self._file.open("a") as file:
                file.write(json.dumps(found) + "\n")
        return found


def measure(model: str, task: str, options: argparse.Namespace, ledger: Ledger) -> list[dict[str, Any]]:
    """Every dimension and type of one model on one task: a row a type."""
    texts = texts_of(task, options.pages)
    opened: list[Embedder] = []

    def open_model() -> Embedder:
        if not opened:
            wanted = {"max_input_tokens": options.max_tokens or None, "threads": options.threads}
            given = {name: value for name, value in wanted.items() if value is not None}
            opened.append(Embedder(_name(model), show_progress=False, **given))
        return opened[0]

    stem = f"{Path(model).name}-{task.replace('/', '_')}-{options.pages}-{options.max_tokens}"
    left_ND, right_ND = (
        vectors_of(side, kind, open_model, options.work / f"{stem}-{name}.npy")
        for side, kind, name in zip((texts.left, texts.right), texts.kinds, ("left", "right"), strict=True)
    )
    for embedder in opened:
        embedder.close()
    asked = task_of(texts, left_ND, right_ND)
    rows = []
    for dtype in DTYPES:
        row: dict[str, Any] = {"model": model, "task": task, "dtype": dtype.value}
        for dim in options.dims or allowed_dims(left_ND.shape[1], 32):
            key = row_key(stem, dim, dtype.value)
            outcome = ledger.value(key, partial(_points, asked, Form(dim, dtype)))
            row["metric"] = outcome["metric"]
            row[f"d{dim}"] = outcome["points"]
        rows.append(row)
    print(report.table(rows), flush=True)
    return rows


def _name(model: str) -> str:
    """What an Embedder calls a model: a folder for our short names, else as given."""
    return str(folder_of(model)) if model in ("minilm", "starter") else model


def row_key(stem: str, dim: int, dtype: str) -> dict[str, Any]:
    """What tells one figure from another."""
    return {"of": stem, "dim": dim, "dtype": dtype}


def _points(task: Task, form: Form) -> dict[str, Any]:
    outcome = task.measure(form)
    return {"metric": outcome.metric, "points": 100 * outcome.value}


def main() -> None:
    """Parse the command line, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["minilm", "starter"], help="minilm, starter, hub ids, folders")
    parser.add_argument("--tasks", nargs="*", default=list(_OWN), help=f"{', '.join(_OWN)}, hub ids or folders")
    parser.add_argument("--dims", nargs="*", type=int, help="by default every multiple of 32")
    parser.add_argument("--pages", type=int, default=2000, help="pages of a corpus of ours")
    parser.add_argument("--max-tokens", type=int, default=128, help="of a text; 0 for what the model reads")
    parser.add_argument("--threads", type=int, help="of the model; 1 is best beside other work")
    parser.add_argument("--work", type=Path, default=Path("build/quality"), help="folder that a run goes on from")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    ledger = Ledger(options.work / "figures.jsonl")
    rows = [row for model in options.models for task in options.tasks for row in measure(model, task, options, ledger)]
    report.publish("quality-by-dimension", rows, options.out)


if __name__ == "__main__":
    main()

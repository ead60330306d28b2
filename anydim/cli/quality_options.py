"""Quality options: the command lines of `anydim fit`, `anydim advise` and `anydim check`, and the jobs they describe.

It knows click and the words of the commands; what is measured, and how, is said in quality/. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from anydim.cli.options import LIBRARY, SettingCommand, setting_options
from anydim.errors import ConfigError

_FIT_EXAMPLES: Final = """\
Examples:
  anydim fit --corpus docs.jsonl -o projection.safetensors
  anydim fit --corpus docs.jsonl --queries queries.jsonl --qrels qrels.tsv -o projection.safetensors
  anydim fit --corpus vectors.parquet --model Qwen/Qwen3-Embedding-0.6B -o projection.safetensors
  anydim serve --projection projection.safetensors --default-dim 64
"""
_FIT: Final = """\
Fit a rotation on the vectors of your own documents, so that few components keep more.

A fifth of the documents is held back and measured cut as they are and cut after the rotation; the advice at the end
goes by these. Cosines of full vectors do not change. The file is for `--projection` of serve, embed, index and search,
and is refused by any other model than the one it was fitted for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataJob:
    """What both commands over data of the user are told.

    Attributes:
        corpus: a file of texts or of stored vectors.
        queries: a file of queries of the same kind, or None.
        qrels: a file of labels, or None.
        text_field: field with the text.
        id_field: field with the id, or None for ``id``, ``_id`` or the row's number.
        vector_field: Parquet column with stored vectors.
        dims: dimensions to measure; empty for the command's own choice.
        as_json: whether only one JSON line is printed.
    """

    corpus: str
    queries: str | None
    qrels: Path | None
    text_field: str
    id_field: str | None
    vector_field: str
    dims: tuple[int, ...]
    as_json: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class FitJob:
    """What one call of `anydim fit` is asked to do.

    Attributes:
        data: what it reads.
        output: the file to write.
        method: how to fit.
        overwrite: whether a file that is there may be replaced.
    """

    data: DataJob
    output: Path
    method: str
    overwrite: bool


def fit_command(callback: Callable[..., None]) -> click.Command:
    """The command; ``callback`` gets the options by name."""
    own: list[click.Parameter] = [
        *data_options(),
        click.Option(["-o", "--output"], required=True, type=click.Path(path_type=Path), help="The file to write."),
        click.Option(
            ["--method"],
            default="auto",
            metavar="NAME",
            help="How to fit; auto takes what does best on documents held back. [default auto]",
        ),
        click.Option(["--overwrite"], is_flag=True, help="Replace a file that is there."),
    ]
    command = SettingCommand("fit", examples=_FIT_EXAMPLES, first=("Other",), callback=callback, params=own, help=_FIT)
    return setting_options(LIBRARY)(command)


def fit_job_of(given: dict[str, Any]) -> FitJob:
    """The job that the options describe; they are taken out of ``given``, which keeps the settings."""
    own = {name: given.pop(name) for name in ("output", "method", "overwrite")}
    return FitJob(data=data_job_of(given), **own)


def data_options() -> list[click.Parameter]:
    """The options of both commands over data of the user."""
    return [
        click.Option(
            ["--corpus"],
            required=True,
            metavar="FILE",
            help="Documents: JSONL, CSV, Parquet or text; or their full vectors, as NPY or a Parquet column.",
        ),
        click.Option(["--queries"], metavar="FILE", help="Queries, in a file of the same kind."),
        click.Option(
            ["--qrels"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Which documents answer which queries: TREC or BEIR lines, or JSONL.",
        ),
        click.Option(["--text-field"], default="text", metavar="NAME", help="Field with the text. [default text]"),
        click.Option(["--id-field"], metavar="NAME", help="Field with the id. [default id or _id, else the row]"),
        click.Option(
            ["--vector-field"],
            default="embedding",
            metavar="NAME",
            help="Parquet column with stored vectors. [default embedding]",
        ),
        click.Option(["--dims"], metavar="A,B", help="Dimensions to measure."),
        click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON line alone."),
    ]


def data_job_of(given: dict[str, Any]) -> DataJob:
    """What is read; the options are taken out of ``given``."""
    names = ("corpus", "queries", "qrels", "text_field", "id_field", "vector_field", "as_json")
    job = DataJob(dims=_numbers(given.pop("dims")), **{name: given.pop(name) for name in names})
    if (job.qrels is None) != (job.queries is None) and job.qrels is not None:
        raise ConfigError("--qrels needs --queries")
    return job


def _numbers(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in (text or "").split(",") if part.strip())
    except ValueError:
        raise ConfigError(f"--dims must be numbers separated by commas, got {text!r}") from None

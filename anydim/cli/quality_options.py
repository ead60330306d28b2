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
from anydim.config import all_settings
from anydim.errors import ConfigError
from anydim.types import OutputDtype

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

_CHECK_EXAMPLES: Final = """\
Examples:
  anydim check
  anydim check Qwen/Qwen3-Embedding-0.6B --html check.html
  anydim check --url http://127.0.0.1:30000 --api-key KEY
  anydim check --corpus docs.jsonl --queries queries.jsonl --qrels qrels.tsv
  ANYDIM_SYNONYMS=0.8 anydim check --translations 0.7
"""
_CHECK: Final = """\
Check that a model or a running server gives the vectors that it should.

1 sentences that mean the same are alike; 2 sentences and their translations find each other; 3 your own --queries
against your own --corpus, the first three side by side. Each step says how well right pairs are told from wrong ones,
since a high cosine alone proves nothing. Then the laws: batch = single, dimensions, prompts, repetition, and parity
with sentence-transformers where that is installed. The exit code is 1 where something fails."""
_DTYPES: Final = "float32,float16,int8,binary"
_ADVISE_EXAMPLES: Final = """\
Examples:
  anydim advise --corpus docs.jsonl
  anydim advise --corpus docs.jsonl --queries queries.jsonl --qrels qrels.tsv --keep 0.99
  anydim advise --corpus vectors.parquet --dims 64,128,256,512 --count 10000000
  anydim advise --corpus sts.csv --task pairs --model Qwen/Qwen3-Embedding-0.6B
  anydim advise --corpus tickets.jsonl --task classification --label-field team
"""
_ADVISE: Final = """\
Say which dimension and which output type to choose, on your own data.

Texts are embedded once, at full width; stored vectors need no model. Every dimension and type, cut as it is and cut
after a fitted rotation, is measured on the task, and the smallest that keeps the share --keep is recommended, with
the interval in which its share lies. Retrieval goes by labels, or without any by what full vectors find."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class AdviseJob:
    """What one call of `anydim advise` is asked to do.

    Attributes:
        data: what it reads.
        output: the folder to write.
        task: retrieval, pairs, classification or clustering.
        keep: the share of the full vectors' metric to keep.
        dtypes: output types to measure.
        fitted: whether fitted forms are measured.
        time: whether searches are timed.
        count: vectors that sizes and times are stated for.
        k: documents a user looks at.
        sample: documents that ask, where there are no queries.
        pair_fields: of a pair's texts.
        score_field: of a pair's score.
        label_field: of a row's label.
    """

    data: DataJob
    output: Path
    task: str
    keep: float
    dtypes: tuple[OutputDtype, ...]
    fitted: bool
    time: bool
    count: int
    k: int
    sample: int
    pair_fields: tuple[str, str]
    score_field: str
    label_field: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckJob:
    """What one call of `anydim check` is asked to do.

    Attributes:
        url: of a running server, or None to check a model in this process.
        key: that the server asks for, or None.
        data: documents and queries of the user, or None.
        html: a page to write, or None.
        as_json: whether one JSON line is printed.
    """

    url: str | None
    key: str | None
    data: DataJob | None
    html: Path | None
    as_json: bool


def check_command(callback: Callable[..., None]) -> click.Command:
    """The command; ``callback`` gets the options by name."""
    own: list[click.Parameter] = [
        click.Argument(["model_argument"], metavar="[MODEL]", required=False),
        click.Option(["--url"], metavar="URL", help="A running server that speaks OpenAI's dialect, ours or another."),
        click.Option(
            ["--api-key", "key"], metavar="KEY", envvar="OPENAI_API_KEY", help="Its key. [env OPENAI_API_KEY]"
        ),
        *data_options(needed=False),
        click.Option(
            ["--html"], type=click.Path(path_type=Path), metavar="FILE", help="Write the report as a page too."
        ),
    ]
    command = SettingCommand(
        "check", examples=_CHECK_EXAMPLES, first=("Other", "Check"), callback=callback, params=own, help=_CHECK
    )
    return setting_options((*_limits(), "default_dim", *LIBRARY))(command)


def _limits() -> list[str]:
    return [setting.name for setting in all_settings() if setting.section == "check"]


def check_job_of(given: dict[str, Any]) -> CheckJob:
    """The job that the options describe; they are taken out of ``given``, which keeps the settings."""
    own = {name: given.pop(name) for name in ("url", "key", "html")}
    as_json = given["as_json"]
    data = data_job_of(given)
    if not data.corpus and data.queries:
        raise ConfigError("--queries needs --corpus")
    return CheckJob(data=data if data.corpus else None, as_json=as_json, **own)


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


def advise_command(callback: Callable[..., None]) -> click.Command:
    """The command; ``callback`` gets the options by name."""
    own: list[click.Parameter] = [
        *data_options(),
        click.Option(
            ["-o", "--output"],
            type=click.Path(path_type=Path),
            default=Path("advise"),
            metavar="FOLDER",
            help="Folder for advise.html, advise.png and advise.json. [default advise]",
        ),
        click.Option(
            ["--task"],
            type=click.Choice(["retrieval", "pairs", "classification", "clustering"]),
            default="retrieval",
            help="What vectors are for. [default retrieval]",
        ),
        click.Option(
            ["--keep"],
            type=click.FloatRange(0, 1),
            default=0.98,
            metavar="SHARE",
            help="Share of the full vectors' metric to keep. [default 0.98]",
        ),
        click.Option(
            ["--dtypes"], default=_DTYPES, metavar="A,B", help=f"Output types to measure. [default {_DTYPES}]"
        ),
        click.Option(
            ["--fitted/--no-fitted"], default=True, help="Measure fitted forms too; half of the rows fit them."
        ),
        click.Option(["--time/--no-time"], default=True, help="Time an exact search with each form."),
        click.Option(
            ["--count"],
            type=click.IntRange(1),
            default=1_000_000,
            metavar="N",
            help="Vectors that sizes and times are stated for. [default 1000000]",
        ),
        click.Option(
            ["--k"], type=click.IntRange(1), default=10, metavar="K", help="Documents a user looks at. [default 10]"
        ),
        click.Option(
            ["--sample"],
            type=click.IntRange(1),
            default=500,
            metavar="N",
            help="Documents that ask for their neighbours where there are no queries. [default 500]",
        ),
        click.Option(
            ["--pair-fields"],
            default="sentence1,sentence2",
            metavar="A,B",
            help="Fields with the texts or vectors of a pair. [default sentence1,sentence2]",
        ),
        click.Option(
            ["--score-field"], default="score", metavar="NAME", help="Field with a pair's score. [default score]"
        ),
        click.Option(
            ["--label-field"], default="label", metavar="NAME", help="Field with a row's label. [default label]"
        ),
    ]
    command = SettingCommand(
        "advise", examples=_ADVISE_EXAMPLES, first=("Other",), callback=callback, params=own, help=_ADVISE
    )
    return setting_options(LIBRARY)(command)


def advise_job_of(given: dict[str, Any]) -> AdviseJob:
    """The job that the options describe; they are taken out of ``given``, which keeps the settings."""
    names = ("output", "task", "keep", "fitted", "time", "count", "k", "sample", "score_field", "label_field")
    own = {name: given.pop(name) for name in names}
    pair = tuple(name.strip() for name in given.pop("pair_fields").split(","))
    if len(pair) != 2 or not all(pair):
        raise ConfigError("--pair-fields needs two names, such as sentence1,sentence2")
    return AdviseJob(dtypes=_dtypes(given.pop("dtypes")), pair_fields=pair, data=data_job_of(given), **own)


def _dtypes(text: str) -> tuple[OutputDtype, ...]:
    try:
        found = tuple(OutputDtype(part.strip()) for part in text.split(",") if part.strip())
    except ValueError:
        found = ()
    if not found:
        raise ConfigError(f"--dtypes must be among {', '.join(OutputDtype)}, got {text!r}")
    return found


def data_options(needed: bool = True) -> list[click.Parameter]:
    """The options of the commands over data of the user."""
    return [
        click.Option(
            ["--corpus"],
            required=needed,
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

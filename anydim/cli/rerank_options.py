"""Rerank options: the command line of `anydim rerank`, and the job that it describes.

It knows click and the words of the command; what a job is, is said in offline/. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from anydim.cli.job_options import job_fields, kept_of, shard_options, source_options
from anydim.cli.options import LIBRARY, SettingCommand, setting_options

if TYPE_CHECKING:
    from anydim.offline.rerank import RerankJob

_EXAMPLES: Final = """\
Examples:
  anydim rerank pairs.jsonl -o scores.parquet --model Qwen/Qwen3-Reranker-0.6B --keep-columns id
  anydim rerank found.jsonl -o ranked.jsonl --model ./my-cross-encoder
  anydim rerank pages.txt --query 'How are lists sorted?' -o scores.npy --model Qwen/Qwen3-Reranker-0.6B
  anydim rerank 'pairs/*.csv.gz' --query-column q --document-column d -o scores.arrow --model ./my-reranker --resume

A job that was stopped leaves its shards in OUTPUT.parts; the same command with --resume goes on and writes the same
bytes. Rows without a score are listed in OUTPUT.errors.jsonl; OUTPUT.manifest.json says what made the file.
"""
_TEXT: Final = """\
Score files of queries and documents.

A row holds a query and a document, or a query and a list of documents. INPUTS are JSONL, CSV, Parquet and text files,
packed or not, folders of them, globs, addresses that fsspec reads, or - for standard input. A row of the output is one
pair: the number of its input row, which document it is, its rank among that row's documents, and its score. The
output's name says its format: .parquet, .jsonl, .npy, .arrow or .lance."""
_TAKE: Final = ("query", "query_column", "document_column", "documents_column")


def rerank_command(callback: Callable[..., None]) -> click.Command:
    """The command; ``callback`` gets the options by name."""
    own: list[click.Parameter] = [
        *source_options([], ""),
        click.Option(["--query"], metavar="TEXT", help="One query for all rows."),
        click.Option(["--query-column"], default="query", metavar="NAME", help="Field with it. [default query]"),
        click.Option(
            ["--document-column"], default="document", metavar="NAME", help="Field with a text. [default document]"
        ),
        click.Option(
            ["--documents-column"],
            default="documents",
            metavar="NAME",
            help="Field with a list of texts, of rows that have no document. [default documents]",
        ),
        click.Option(["--instruction"], metavar="TEXT", help="What makes a document relevant."),
        click.Option(
            ["--truncate"],
            type=click.Choice(["end", "start", "none"]),
            default="end",
            help="Cut documents of pairs that are too long there, or make their rows errors. [default end]",
        ),
        click.Option(
            ["--raw-scores/--no-raw-scores", "raw"],
            default=None,
            help="The model's own numbers, or between 0 and 1; by default as the model's folder says.",
        ),
        *shard_options(),
    ]
    command = SettingCommand("rerank", examples=_EXAMPLES, first=("Other",), callback=callback, params=own, help=_TEXT)
    return setting_options(("rerank_template", *(name for name in LIBRARY if name != "projection")))(command)


def rerank_job_of(given: dict[str, Any]) -> RerankJob:
    """The job that the options describe; they are taken out of ``given``, which keeps the settings."""
    from anydim.intake.request import Truncate
    from anydim.offline.records import Reading
    from anydim.offline.rerank import QueryAndDocuments, RerankJob

    take = QueryAndDocuments(**{name: given.pop(name) for name in _TAKE})
    return RerankJob(
        reading=Reading(take=take, keep=kept_of(given), format=given.pop("input_format")),
        instruction=given.pop("instruction"),
        truncate=Truncate(given.pop("truncate")),
        raw=given.pop("raw"),
        **job_fields(given),
    )

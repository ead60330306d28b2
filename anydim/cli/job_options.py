"""Job options: what the command lines of `anydim embed` and `anydim rerank` have in common.

It knows click and the words of the commands; what a job is, is said in offline/. Imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from anydim.engine.child import SHAPES_OF_A_JOB, bound_product_caches

_OF_JOB: Final = ("inputs", "output", "shard_texts", "resume", "overwrite")


def source_options(formats: Sequence[str], auto: str) -> list[click.Parameter]:
    """Where the rows come from, where the output goes, and which fields go along."""
    return [
        click.Argument(["inputs"], metavar="INPUTS...", nargs=-1, required=True),
        click.Option(["-o", "--output"], required=True, type=click.Path(path_type=Path), help="The file to write."),
        click.Option(["--keep-columns"], multiple=True, metavar="A,B", help="Fields that go along; repeatable."),
        click.Option(
            ["--input-format"],
            type=click.Choice(["auto", "jsonl", "csv", "parquet", "text", *formats]),
            default="auto",
            help=f"What the inputs are; auto goes by their names{auto}. [default auto]",
        ),
    ]


def shard_options() -> list[click.Parameter]:
    """How a job is cut up, and what becomes of one that was stopped."""
    return [
        click.Option(
            ["--shard-texts"],
            type=click.IntRange(1),
            default=8192,
            metavar="N",
            help="Texts of a shard: what a crash may lose. [default 8192]",
        ),
        click.Option(["--resume"], is_flag=True, help="Go on with an unfinished job."),
        click.Option(["--overwrite"], is_flag=True, help="Begin anew where an output or an unfinished job is."),
    ]


def spare_memory() -> None:
    """Keep the code of few shapes of products; before torch is imported."""
    bound_product_caches(os.environ, SHAPES_OF_A_JOB)


def kept_of(given: dict[str, Any]) -> tuple[str, ...]:
    """The fields that go along; the option is taken out of ``given``."""
    kept = given.pop("keep_columns")
    return tuple(name.strip() for part in kept for name in part.split(",") if name.strip())


def job_fields(given: dict[str, Any]) -> dict[str, Any]:
    """What every job is asked for beside its reading; the options are taken out of ``given``."""
    return {name: given.pop(name) for name in _OF_JOB}

"""Embed options: the command line of `anydim embed`, and the job that it describes.

It knows click and the words of the command; what a job is, is said in offline/. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from anydim.cli.options import LIBRARY, SettingCommand, setting_options
from anydim.types import OutputDtype

if TYPE_CHECKING:
    from anydim.deploy.pool import Pool
    from anydim.offline.job import EmbedJob

_EXAMPLES: Final = """\
Examples:
  anydim embed docs.jsonl -o vectors.parquet --keep-columns id,title
  anydim embed 'corpus/*.csv.gz' --column body -o vectors.parquet --output-dim 256 --output-dtype int8
  anydim embed queries.txt -o queries.npy --input-type query --model Qwen/Qwen3-Embedding-0.6B
  zcat dump.jsonl.gz | anydim embed - -o vectors.jsonl --truncate end
  anydim embed s3://bucket/docs.parquet -o vectors.arrow --resume
  anydim embed 'corpus/*.jsonl.zst' -o vectors.parquet --ray auto --ray-actors 16

A job that was stopped leaves its shards in OUTPUT.parts; the same command with --resume goes on and writes the same
bytes. Rows without a vector are listed in OUTPUT.errors.jsonl; OUTPUT.manifest.json says what made the file.
"""
_TEXT: Final = """\
Embed files of texts.

INPUTS are JSONL, CSV, Parquet and text files (one text a line), packed or not, folders of them, globs, addresses that
fsspec reads, or - for standard input. The output's name says its format: .parquet, .jsonl, .npy, .arrow or .lance.
Rows stand in the order of the input."""


def embed_command(callback: Callable[..., None]) -> click.Command:
    """The command; ``callback`` gets the options by name."""
    own: list[click.Parameter] = [
        click.Argument(["inputs"], metavar="INPUTS...", nargs=-1, required=True),
        click.Option(["-o", "--output"], required=True, type=click.Path(path_type=Path), help="The file to write."),
        click.Option(["--column"], default="text", metavar="NAME", help="Field with the text. [default text]"),
        click.Option(["--keep-columns"], multiple=True, metavar="A,B", help="Fields that go along; repeatable."),
        click.Option(
            ["--input-format"],
            type=click.Choice(["auto", "jsonl", "csv", "parquet", "text"]),
            default="auto",
            help="What the inputs are; auto goes by their names. [default auto]",
        ),
        click.Option(["--output-dim"], type=int, metavar="D", help="Components of a vector."),
        click.Option(
            ["--output-dtype"],
            type=click.Choice([kind.value for kind in OutputDtype]),
            default="float32",
            help="How components are written. [default float32]",
        ),
        click.Option(["--instruction"], metavar="TEXT", help="The task, for models trained with instructions."),
        click.Option(["--prompt-name"], metavar="NAME", help="A prompt of the model's own."),
        click.Option(["--input-type"], type=click.Choice(["query", "document"]), help="What the texts are for."),
        click.Option(
            ["--truncate"],
            type=click.Choice(["end", "start", "none"]),
            default="none",
            help="Cut texts that are too long there, or make them errors. [default none]",
        ),
        click.Option(
            ["--shard-texts"],
            type=click.IntRange(1),
            default=8192,
            metavar="N",
            help="Texts of a shard: what a crash may lose. [default 8192]",
        ),
        click.Option(["--resume"], is_flag=True, help="Go on with an unfinished job."),
        click.Option(["--overwrite"], is_flag=True, help="Begin anew where an output or an unfinished job is."),
        *_ray_options(),
    ]
    command = SettingCommand("embed", examples=_EXAMPLES, first=("Other",), callback=callback, params=own, help=_TEXT)
    return setting_options(("default_dim", *LIBRARY))(command)


def _ray_options() -> list[click.Parameter]:
    return [
        click.Option(
            ["--ray"],
            metavar="ADDRESS",
            help="On a Ray cluster: auto for the one of this machine, HOST:PORT of a head, or local for a new one.",
        ),
        click.Option(
            ["--ray-actors"],
            type=click.IntRange(1),
            metavar="N",
            help="Actors, each with an engine; by default one a GPU, or one a machine where there is no GPU.",
        ),
        click.Option(
            ["--ray-gpus"],
            type=click.FloatRange(0),
            metavar="G",
            help="GPUs of an actor; by default 1 where the cluster has any.",
        ),
        click.Option(
            ["--ray-cpus"],
            type=click.FloatRange(0),
            default=1,
            metavar="C",
            help="CPUs of an actor, and its threads where it has no GPU. [default 1]",
        ),
    ]


def pool_of(given: dict[str, Any]) -> Pool | None:
    """The actors that the options describe, None without a cluster; they are taken out of ``given``."""
    from anydim.deploy.pool import Pool

    address, *numbers = (given.pop(name) for name in ("ray", "ray_actors", "ray_gpus", "ray_cpus"))
    actors, gpus, cpus = numbers
    return None if address is None else Pool(address=address, actors=actors, gpus=gpus, cpus=cpus)


def job_of(given: dict[str, Any]) -> EmbedJob:
    """The job that the options describe; they are taken out of ``given``, which keeps the settings."""
    from anydim.intake.request import InputType, Truncate
    from anydim.offline.job import EmbedJob
    from anydim.offline.records import Reading

    input_type, keep = given.pop("input_type"), given.pop("keep_columns")
    return EmbedJob(
        inputs=given.pop("inputs"),
        output=given.pop("output"),
        reading=Reading(
            column=given.pop("column"),
            keep=tuple(name.strip() for part in keep for name in part.split(",") if name.strip()),
            format=given.pop("input_format"),
        ),
        output_dim=given.pop("output_dim"),
        output_dtype=OutputDtype(given.pop("output_dtype")),
        input_type=None if input_type is None else InputType(input_type),
        truncate=Truncate(given.pop("truncate")),
        **{name: given.pop(name) for name in ("instruction", "prompt_name", "shard_texts", "resume", "overwrite")},
    )

"""Embed options: the command line of `anydim embed`, and the job that it describes.

It knows click and the words of the command; what a job is, is said in offline/. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from anydim.cli.job_options import job_fields, kept_of, shard_options, source_options
from anydim.cli.options import LIBRARY, SettingCommand, setting_options
from anydim.errors import ConfigError
from anydim.types import OutputDtype

if TYPE_CHECKING:
    from anydim.deploy.pool import Pool
    from anydim.offline.job import Job

_BATCH: Final = "openai-batch"
_OWN: Final = ("column", "output_dim", "output_dtype", "instruction", "prompt_name", "input_type", "truncate")
_EXAMPLES: Final = """\
Examples:
  anydim embed docs.jsonl -o vectors.parquet --keep-columns id,title
  anydim embed 'corpus/*.csv.gz' --column body -o vectors.parquet --output-dim 256 --output-dtype int8
  anydim embed queries.txt -o queries.npy --input-type query --model Qwen/Qwen3-Embedding-0.6B
  zcat dump.jsonl.gz | anydim embed - -o vectors.jsonl --truncate end
  anydim embed s3://bucket/docs.parquet -o vectors.arrow --resume
  anydim embed 'corpus/*.jsonl.zst' -o vectors.parquet --ray auto --ray-actors 16
  anydim embed batch.jsonl -o answers.jsonl --served-model-name text-embedding-3-small

A job that was stopped leaves its shards in OUTPUT.parts; the same command with --resume goes on and writes the same
bytes. Rows without a vector are listed in OUTPUT.errors.jsonl; OUTPUT.manifest.json says what made the file.
"""
_TEXT: Final = """\
Embed files of texts.

INPUTS are JSONL, CSV, Parquet and text files (one text a line), packed or not, folders of them, globs, addresses that
fsspec reads, or - for standard input. The output's name says its format: .parquet, .jsonl, .npy, .arrow or .lance.
Rows stand in the order of the input.

Batch files of OpenAI's, with a request to /v1/embeddings a line, are answered in the shape of OpenAI's output files."""


def embed_command(callback: Callable[..., None]) -> click.Command:
    """The command; ``callback`` gets the options by name."""
    own: list[click.Parameter] = [
        *source_options([_BATCH], ", and finds batch files by their first line"),
        click.Option(["--column"], default="text", metavar="NAME", help="Field with the text. [default text]"),
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
        *shard_options(),
        *_ray_options(),
    ]
    command = SettingCommand("embed", examples=_EXAMPLES, first=("Other",), callback=callback, params=own, help=_TEXT)
    return setting_options(("default_dim", "served_model_name", *LIBRARY))(command)


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
            help="GPUs of an actor; by default what --tp says where the cluster has any.",
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


def job_of(given: dict[str, Any]) -> Job:
    """The job that the options describe; they are taken out of ``given``, which keeps the settings.

    Raises:
        InvalidRequest: an input is not there.
        ConfigError: options do not go with a batch file.
    """
    from anydim.intake.request import InputType, Truncate
    from anydim.offline.embed import EmbedJob
    from anydim.offline.records import OneText, Reading

    fields, keep, kind = job_fields(given), kept_of(given), given.pop("input_format")
    own = {name: given.pop(name) for name in _OWN}
    if kind == _BATCH or (kind == "auto" and _is_batch(fields["inputs"])):
        return _batch_job(fields, {**own, "keep_columns": keep})
    input_type = own["input_type"]
    return EmbedJob(
        reading=Reading(take=OneText(own["column"]), keep=keep, format=kind),
        output_dim=own["output_dim"],
        output_dtype=OutputDtype(own["output_dtype"]),
        input_type=None if input_type is None else InputType(input_type),
        truncate=Truncate(own["truncate"]),
        instruction=own["instruction"],
        prompt_name=own["prompt_name"],
        **fields,
    )


def _is_batch(inputs: Sequence[str]) -> bool:
    """Whether the first line of the first input is a request; standard input is not looked at."""
    from anydim.offline.batch import is_batch
    from anydim.offline.records import STDIN, OneText, Reading, read_records

    if STDIN in inputs or not all(".jsonl" in name for name in inputs):
        return False
    first = next(read_records(inputs[:1], Reading(take=OneText("line"), format="text")), None)
    return first is not None and is_batch(first.text)


def _batch_job(fields: dict[str, Any], given: dict[str, Any]) -> Job:
    from anydim.offline.job import Job
    from anydim.offline.records import OneText, Reading

    defaults = {"column": "text", "output_dtype": "float32", "truncate": "none", "keep_columns": ()}
    for name, value in given.items():
        if value != defaults.get(name):
            flag = name.replace("_", "-")
            raise ConfigError(f"--{flag} does not go with a batch file: each of its requests says what it wants")
    # A line holds up to 2048 inputs: what matters is how much text there is.
    return Job(reading=Reading(take=OneText("line"), format="text"), shard_characters=1 << 20, **fields)

"""Job: one call of `anydim embed`, from records to a file of vectors, a shard at a time.

A shard's texts are tokenised while the engine works on the shard before, sorted by length, and handed to the engine
together and alone: its batches then depend on the shard and nothing else, so that a job that was stopped and goes on
writes the same bytes. It knows an Embedder, records and shards; it knows no command line.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import torch

from anydim.embedder import Embedder
from anydim.errors import AnydimError, ConfigError
from anydim.intake.request import EmbedRequest, InputType, Truncate
from anydim.offline.records import Reading, Record, read_records
from anydim.offline.shards import FORMATS, Failure, Parts, Width, arrow, sha256_of
from anydim.types import Item, Output, OutputDtype, Priority, Terms
from anydim.version import VERSION

_SHARD_CHARACTERS: Final = 16 << 20  # a shard of long texts ends sooner, so that memory stays flat
_CHUNK: Final = 256  # texts tokenised at once; a refused one has its chunk done again one by one
_MODEL_FILES: Final = ("config.json", "tokenizer.json", "model.safetensors.index.json")  # read in no time
_TERMS: Final = Terms(priority=Priority.LOW)  # all in one lane, in the order in which they are handed over


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedJob:
    """What is asked for.

    Attributes:
        inputs: files, folders, globs, addresses, or ``-``.
        output: the file to write; its end says the format, see shards.FORMATS.
        reading: how rows are read.
        output_dim: components of each vector; None for the model's default.
        output_dtype: how vectors are written.
        instruction, prompt_name, input_type: what goes before the texts, as the server takes them.
        truncate: what happens to texts that are too long; ``none`` makes them errors.
        shard_texts: most texts of a shard: what a crash may lose.
        resume: go on with an unfinished job.
        overwrite: begin anew where an output or an unfinished job is.
    """

    inputs: Sequence[str]
    output: Path
    reading: Reading = field(default_factory=Reading)
    output_dim: int | None = None
    output_dtype: OutputDtype = OutputDtype.FLOAT32
    instruction: str | None = None
    prompt_name: str | None = None
    input_type: InputType | None = None
    truncate: Truncate = Truncate.NONE
    shard_texts: int = 8192
    resume: bool = False
    overwrite: bool = False


@dataclass(slots=True)
class Done:
    """What was done so far.

    Attributes:
        rows: rows read, those of earlier runs included.
        failed: rows without a vector.
        texts: texts embedded by this run.
        tokens: tokens of these.
        seconds: since the run began.
        dim: components of a vector.
        shards: shards read, those of earlier runs included.
    """

    rows: int = 0
    failed: int = 0
    texts: int = 0
    tokens: int = 0
    seconds: float = 0.0
    dim: int = 0
    shards: int = 0


@dataclass(frozen=True, slots=True)
class _Shard:
    """A shard on its way through the engine.

    Attributes:
        number: of the shard.
        records: its rows.
        places: of the texts that the engine gets, in the order in which it gets them.
        items: these texts.
        failed: what is wrong with other texts, by place.
    """

    number: int
    records: Sequence[Record]
    places: Sequence[int]
    items: Sequence[Item]
    failed: Mapping[int, Output]


def run_job(embedder: Embedder, job: EmbedJob, progress: Callable[[Done], None]) -> Done:
    """Do the job; beside the output it leaves OUTPUT.manifest.json, and OUTPUT.errors.jsonl where rows failed.

    Args:
        embedder: the model.
        job: what is asked for.
        progress: called after every shard.

    Raises:
        ConfigError: the output does not fit, or something is in its way.
        InvalidRequest: an input cannot be read at all, or a field is refused.
        MissingExtra: a package is missing.
    """
    if job.output.suffix not in FORMATS:
        raise ConfigError(f"{job.output}: the name must end in one of {', '.join(FORMATS)}")
    arrow()  # a missing package is said before any work is done
    request = _request(job)
    (probe,) = embedder.intake.prepare(replace(request, inputs=["a"]))  # refuses wrong fields before any file is read
    records = read_records(job.inputs, job.reading)
    parts = Parts(job.output)
    finished = parts.open(_identity(embedder, job, probe.dim), job.resume, job.overwrite)
    done = Done(dim=probe.dim)
    pending = _pending(records, job.shard_texts, parts, finished, done)
    width = Width(job.output_dtype, job.output_dtype.stored(probe.dim))
    began = time.perf_counter()
    for shard, outputs in _through(embedder, (_prepare(embedder, request, *each) for each in pending)):
        parts.add(shard.number, shard.records, outputs, width)
        done.rows = shard.records[-1].row + 1
        done.texts += len(shard.items)
        done.tokens += sum(len(item.ids) for item in shard.items)
        done.seconds = time.perf_counter() - began
        progress(done)
    if not done.shards:
        parts.remove()
        raise ConfigError("the input holds no row")
    failures = list(parts.failures(done.shards))
    done.failed, done.seconds = len(failures), time.perf_counter() - began
    parts.assemble(done.shards, done.rows)
    _leave(embedder, job, done, failures)
    parts.remove()
    return done


def _pending(
    records: Iterable[Record], most: int, parts: Parts, finished: int, done: Done
) -> Iterator[tuple[int, list[Record]]]:
    """The shards that are not there yet; those that are must have come from the same rows."""
    for number, shard in enumerate(_shards(records, most)):
        done.shards = number + 1
        if number >= finished:
            yield number, shard
        else:
            parts.check(number, shard)
            done.rows = shard[-1].row + 1


def _shards(records: Iterable[Record], most: int) -> Iterator[list[Record]]:
    """Records in lists of so many, or of so many characters; the input alone decides where one ends."""
    shard: list[Record] = []
    size = 0
    for record in records:
        shard.append(record)
        size += len(record.text)
        if len(shard) >= most or size >= _SHARD_CHARACTERS:
            yield shard
            shard, size = [], 0
    if shard:
        yield shard


def _prepare(embedder: Embedder, request: EmbedRequest, number: int, records: Sequence[Record]) -> _Shard:
    """Tokenise a shard, the longest texts first, so that texts of a batch have about one length."""
    good = [place for place, record in enumerate(records) if not record.problem]
    items: dict[int, Item] = {}
    failed: dict[int, Output] = {}
    for start in range(0, len(good), _CHUNK):
        chunk = good[start : start + _CHUNK]
        for place, found in zip(
            chunk, _tokenised(embedder, request, [records[one].text for one in chunk]), strict=True
        ):
            if isinstance(found, Item):
                items[place] = found
            else:
                failed[place] = Output(np.empty(0, np.float32), error=found)
    places = sorted(items, key=lambda place: -len(items[place].ids))
    return _Shard(number, records, places, [items[place] for place in places], failed)


def _tokenised(embedder: Embedder, request: EmbedRequest, texts: Sequence[str]) -> Sequence[Item | AnydimError]:
    """An Item a text, or why there is none: all at once, and one by one where one of them is refused."""
    try:
        return embedder.intake.prepare(replace(request, inputs=texts))
    except AnydimError as error:
        if len(texts) == 1:
            return [error]
        return [_tokenised(embedder, request, [text])[0] for text in texts]


def _through(embedder: Embedder, shards: Iterator[_Shard]) -> Iterator[tuple[_Shard, Mapping[int, Output]]]:
    """Each shard with its Outputs. While the engine has one, the next is tokenised and the one before is written."""
    with ThreadPoolExecutor(1, "anydim-tokenise") as pool:
        running: tuple[_Shard, Future[list[Output]]] | None = None
        following = pool.submit(next, shards, None)
        try:
            while shard := following.result():
                following = pool.submit(next, shards, None)
                before = _finished(running)
                running = shard, embedder.submit(shard.items)
                yield from before
            yield from _finished(running)
        except BaseException:  # Ctrl-C above all: the shard at hand is lost, and no other
            if running is not None:
                running[1].cancel()
            raise


def _finished(running: tuple[_Shard, Future[list[Output]]] | None) -> list[tuple[_Shard, Mapping[int, Output]]]:
    if running is None:
        return []
    shard, future = running
    return [(shard, {**shard.failed, **dict(zip(shard.places, future.result(), strict=True))})]


def _request(job: EmbedJob) -> EmbedRequest:
    return EmbedRequest(
        inputs=[],
        output_dim=job.output_dim,
        output_dtype=job.output_dtype,
        instruction=job.instruction,
        prompt_name=job.prompt_name,
        input_type=job.input_type,
        truncate=job.truncate,
        terms=_TERMS,
    )


def _identity(embedder: Embedder, job: EmbedJob, dim: int) -> dict[str, Any]:
    """What must be the same for a job to go on: everything that the vectors depend on."""
    card, started = embedder.card, embedder.started
    return {
        "model": card.name,
        "model_sha256": {name: sha256_of(card.folder / name) for name in _MODEL_FILES if (card.folder / name).exists()},
        "dim": dim,
        "output_dtype": job.output_dtype.value,
        "instruction": job.instruction,
        "prompt_name": job.prompt_name,
        "input_type": job.input_type and job.input_type.value,
        "truncate": job.truncate.value,
        "column": job.reading.column,
        "keep_columns": list(job.reading.keep),
        "input_format": job.reading.format,
        "shard_texts": job.shard_texts,
        "device": started.device,
        "dtype": started.dtype,
        "batch_tokens": started.batch_tokens,
        "anydim": VERSION,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _leave(embedder: Embedder, job: EmbedJob, done: Done, failures: Sequence[Failure]) -> None:
    """The manifest, and the errors where there are any."""
    errors = job.output.with_name(job.output.name + ".errors.jsonl")
    errors.unlink(missing_ok=True)
    if failures:
        errors.write_bytes(b"".join(msgspec.json.encode(failure) + b"\n" for failure in failures))
    manifest = {
        **_identity(embedder, job, done.dim),
        "revision": embedder.card.folder.name if embedder.card.folder.parent.name == "snapshots" else None,
        "inputs": list(job.inputs),
        "output": job.output.name,
        "output_sha256": None if job.output.suffix == ".lance" else sha256_of(job.output),
        "rows": done.rows,
        "failed": done.failed,
        "shards": done.shards,
    }
    told = job.output.with_name(job.output.name + ".manifest.json")
    told.write_text(json.dumps(manifest, indent=1) + "\n")

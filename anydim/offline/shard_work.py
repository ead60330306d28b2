"""Shard work: what every kind of job does with one shard, from its records to the bytes of its part of the output.

A shard's texts are tokenised in chunks, put into an order, and handed to the engine as one group, whose batches depend
on nothing else. It knows models in this process and records; it knows no files, not which shard comes next, and not
what is made of the Outputs.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch

from anydim.config import ModelSettings
from anydim.engine.limits import too_long
from anydim.engine.wire import Started
from anydim.errors import AnydimError
from anydim.models.card import ModelCard
from anydim.models.identity import identity_of
from anydim.offline.records import Record
from anydim.offline.writers import sha256_of
from anydim.types import Item, Output, Priority, Terms
from anydim.version import VERSION

CHUNK: Final = 256  # texts tokenised at once; a refused one has its chunk done again one by one
TERMS: Final = Terms(priority=Priority.LOW)  # all in one lane, in the order in which they are handed over
_MODEL_FILES: Final = (
    "config.json",
    "tokenizer.json",
    "model.safetensors.index.json",
    "config_sentence_transformers.json",
)  # read in no time

Made = Sequence[Item] | AnydimError
"""The Items of one record, or why there are none."""

Gained = Sequence[Output] | AnydimError
"""The Outputs of one record, in the order of its Items, or why there are none."""


class LocalModel(Protocol):
    """An Embedder or a Reranker."""

    card: ModelCard
    settings: ModelSettings
    started: Started

    def submit(self, items: Sequence[Item]) -> Future[list[Output]]:
        """See Embedder."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a job has to do with one model on one machine.

    Attributes:
        dim: components of a vector; 1 of a score.
        identity: everything that the output depends on; where it is the same it has the same bytes.
        revision: of the model on the hub, where it came from there.
    """

    dim: int
    identity: Mapping[str, Any]
    revision: str | None


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard on its way through the engine.

    Attributes:
        number: of the shard.
        records: its rows.
        items: what the engine gets.
        owners: of each Item, the place of its record and its own place there.
        refused: what is wrong with records without Items, by place.
    """

    number: int
    records: Sequence[Record]
    items: Sequence[Item]
    owners: Sequence[tuple[int, int]]
    refused: Mapping[int, AnydimError]

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return sum(len(item.ids) for item in self.items)

    def gained(self, found: Sequence[Output]) -> dict[int, Gained]:
        """What the engine made of each record that has texts, by place; one failed text fails its record."""
        parts: dict[int, dict[int, Output]] = {}
        for (place, index), output in zip(self.owners, found, strict=True):
            parts.setdefault(place, {})[index] = output
        gained: dict[int, Gained] = dict(self.refused)
        for place, outputs in parts.items():
            failed = next((output.error for output in outputs.values() if output.error is not None), None)
            gained[place] = failed or [outputs[index] for index in range(len(outputs))]
        return gained


class Work(Protocol):
    """One kind of job, with a model in this process."""

    facts: Facts

    def prepare(self, number: int, records: Sequence[Record]) -> Shard:
        """Tokenise a shard."""
        ...

    def submit(self, shard: Shard) -> Future[list[Output]]:
        """Hand a shard to the engine."""
        ...

    def encode(self, shard: Shard, found: Sequence[Output]) -> Any:
        """The shard's part of the output, as the bytes of an Arrow file."""
        ...


def shard_of(
    number: int,
    records: Sequence[Record],
    make: Callable[[Sequence[Record]], Sequence[Made]],
    order: Callable[[int, Item], Any],
    longest: int | None,
) -> Shard:
    """Tokenise the records that have texts, chunk by chunk.

    Args:
        number: of the shard.
        records: its rows.
        make: Items of some records, one entry a record.
        order: by what Items are sorted: of the place of its record, and the Item.
        longest: most tokens of a text that the engine takes, None where it takes every one.
    """
    made: dict[int, Sequence[Item]] = {}
    refused: dict[int, AnydimError] = {}
    for chunk in _chunks(records):
        for place, found in zip(chunk, make([records[one] for one in chunk]), strict=True):
            refusal = found if isinstance(found, AnydimError) else too_long(found, longest)
            if refusal is not None:
                refused[place] = refusal
            elif not isinstance(found, AnydimError):
                made[place] = found
    rows = [(place, index, item) for place, items in made.items() for index, item in enumerate(items)]
    rows.sort(key=lambda row: order(row[0], row[2]))
    items = [replace(item, group=number + 1) for _, _, item in rows]  # 0 is everybody else's
    owners = [(place, index) for place, index, _ in rows]
    return Shard(number, records, items, owners, refused)


def one_by_one(
    make: Callable[[Sequence[Record]], Sequence[Sequence[Item]]], records: Sequence[Record]
) -> Sequence[Made]:
    """What ``make`` makes of records at once, or one by one where one of them is refused."""
    try:
        return make(records)
    except AnydimError as error:
        if len(records) == 1:
            return [error]
        return [one_by_one(make, [record])[0] for record in records]


def facts_of(model: LocalModel, dim: int, asked: Mapping[str, Any]) -> Facts:
    """The facts of a job.

    Args:
        model: what runs.
        dim: components of a vector.
        asked: what was asked for and changes the output.
    """
    card, settings, started = model.card, model.settings, model.started
    projection = settings.projection and sha256_of(Path(settings.projection))
    identity = {
        "model": card.name,
        "model_sha256": {name: sha256_of(card.folder / name) for name in _MODEL_FILES if (card.folder / name).exists()},
        "weights": "" if settings.load_format == "dummy" else identity_of(card).digest,
        "max_input_tokens": settings.max_input_tokens,
        "projection_sha256": projection,
        **asked,
        "device": started.device,
        "dtype": started.dtype,
        "batch_tokens": started.batch_tokens,
        "anydim": VERSION,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    revision = card.folder.name if card.folder.parent.name == "snapshots" else None
    return Facts(dim=dim, identity=identity, revision=revision)


def _chunks(records: Sequence[Record]) -> list[list[int]]:
    """Places of the records with texts, in runs of about so many texts."""
    chunks: list[list[int]] = [[]]
    size = 0
    for place, record in enumerate(records):
        if not record.problem:
            chunks[-1].append(place)
            size += len(record.texts)
            if size >= CHUNK:
                chunks.append([])
                size = 0
    return [chunk for chunk in chunks if chunk]

"""Shard work: what `anydim embed` does with one shard, from its records to vectors, with a model in this process.

It knows an Embedder and records; it knows no files, and not which shard comes next.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from anydim.embedder import Embedder
from anydim.errors import AnydimError
from anydim.intake.request import EmbedRequest
from anydim.offline.records import Record
from anydim.offline.shards import Width, sha256_of
from anydim.types import Item, Output, Priority, Terms
from anydim.version import VERSION

if TYPE_CHECKING:
    from anydim.offline.job import EmbedJob

_CHUNK: Final = 256  # texts tokenised at once; a refused one has its chunk done again one by one
_MODEL_FILES: Final = ("config.json", "tokenizer.json", "model.safetensors.index.json")  # read in no time
_TERMS: Final = Terms(priority=Priority.LOW)  # all in one lane, in the order in which they are handed over


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a job has to do with one model on one machine.

    Attributes:
        dim: components of a vector.
        identity: everything that the vectors depend on; where it is the same they have the same bytes.
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
        places: of the texts that the engine gets, in the order in which it gets them.
        items: these texts.
        failed: what is wrong with other texts, by place.
    """

    number: int
    records: Sequence[Record]
    places: Sequence[int]
    items: Sequence[Item]
    failed: Mapping[int, Output]

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return sum(len(item.ids) for item in self.items)

    def outputs(self, found: Sequence[Output]) -> Mapping[int, Output]:
        """What the engine made of the items, and what was wrong with other texts, by place."""
        return {**self.failed, **dict(zip(self.places, found, strict=True))}


class ShardWork:
    """A job's work on one shard at a time, with a model in this process."""

    def __init__(self, embedder: Embedder, job: EmbedJob) -> None:
        """Check the job against the model.

        Raises:
            InvalidRequest: a field is refused.
        """
        self._embedder = embedder
        self._request = _request(job)
        (probe,) = embedder.intake.prepare(replace(self._request, inputs=["a"]))
        folder = embedder.card.folder
        self.facts = Facts(
            dim=probe.dim,
            identity=_identity(embedder, job, probe.dim),
            revision=folder.name if folder.parent.name == "snapshots" else None,
        )
        self.width = Width(job.output_dtype, job.output_dtype.stored(probe.dim))

    def prepare(self, number: int, records: Sequence[Record]) -> Shard:
        """Tokenise a shard, the longest texts first, so that texts of a batch have about one length."""
        good = [place for place, record in enumerate(records) if not record.problem]
        items: dict[int, Item] = {}
        failed: dict[int, Output] = {}
        for start in range(0, len(good), _CHUNK):
            chunk = good[start : start + _CHUNK]
            for place, found in zip(chunk, self._tokenised([records[one].text for one in chunk]), strict=True):
                if isinstance(found, Item):
                    items[place] = found
                else:
                    failed[place] = Output(np.empty(0, np.float32), error=found)
        places = sorted(items, key=lambda place: -len(items[place].ids))
        return Shard(number, records, places, [items[place] for place in places], failed)

    def submit(self, shard: Shard) -> Future[list[Output]]:
        """Hand a shard to the engine, which must have nothing else to do: so its batches depend on the shard alone."""
        return self._embedder.submit(shard.items)

    def _tokenised(self, texts: Sequence[str]) -> Sequence[Item | AnydimError]:
        """An Item a text, or why there is none: all at once, and one by one where one of them is refused."""
        try:
            return self._embedder.intake.prepare(replace(self._request, inputs=texts))
        except AnydimError as error:
            if len(texts) == 1:
                return [error]
            return [self._tokenised([text])[0] for text in texts]


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

"""Embed: what is asked for by `anydim embed`, and its work on a shard: a text a record, a vector a text.

It knows an Embedder and records; it knows no files, and not which shard comes next.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from anydim.embedder import Embedder
from anydim.errors import AnydimError, InvalidRequest
from anydim.intake.request import EmbedRequest, InputType, Truncate
from anydim.offline.job import Job
from anydim.offline.records import Record
from anydim.offline.shard_work import TERMS, Made, Shard, facts_of, one_by_one, shard_of
from anydim.offline.shards import Failure, Width, encode_shard, vector_columns
from anydim.offline.writers import ROW, SCALE, VECTOR
from anydim.types import Item, Output, OutputDtype


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedJob(Job):
    """What is asked for.

    Attributes:
        output_dim: components of each vector; None for the model's default.
        output_dtype: how vectors are written.
        instruction, prompt_name, input_type: what goes before the texts, as the server takes them.
        truncate: what happens to texts that are too long; ``none`` makes them errors.
    """

    columns: ClassVar[Sequence[str]] = (ROW, VECTOR, SCALE)

    output_dim: int | None = None
    output_dtype: OutputDtype = OutputDtype.FLOAT32
    instruction: str | None = None
    prompt_name: str | None = None
    input_type: InputType | None = None
    truncate: Truncate = Truncate.NONE


class EmbedWork:
    """Work, see shard_work."""

    def __init__(self, embedder: Embedder, job: EmbedJob) -> None:
        """Check the job against the model.

        Raises:
            InvalidRequest: a field is refused.
        """
        self._embedder = embedder
        self._request = EmbedRequest(
            inputs=[],
            output_dim=job.output_dim,
            output_dtype=job.output_dtype,
            instruction=job.instruction,
            prompt_name=job.prompt_name,
            input_type=job.input_type,
            truncate=job.truncate,
            terms=TERMS,
        )
        (probe,) = embedder.intake.prepare(replace(self._request, inputs=["a"]))
        self._width = Width(job.output_dtype, job.output_dtype.stored(probe.dim))
        self.facts = facts_of(embedder, probe.dim, _asked(job, probe.dim))

    def prepare(self, number: int, records: Sequence[Record]) -> Shard:
        """The longest texts first, so that texts of a batch have about one length."""
        longest = self._embedder.started.longest
        return shard_of(number, records, self._make, lambda place, item: -len(item.ids), longest)

    def submit(self, shard: Shard) -> Future[list[Output]]:
        """See Work."""
        return self._embedder.submit(shard.items)

    def encode(self, shard: Shard, found: Sequence[Output]) -> Any:
        """See Work."""
        gained = shard.gained(found)
        good = {place: outputs[0] for place, outputs in gained.items() if isinstance(outputs, Sequence)}
        columns = vector_columns([good[place] for place in sorted(good)], self._width)
        failures = Failure.among(shard.records, gained)
        return encode_shard(shard.records, sorted(good), columns, failures)

    def _make(self, records: Sequence[Record]) -> Sequence[Made]:
        return [_of_a_row(made) if isinstance(made, AnydimError) else made for made in one_by_one(self._items, records)]

    def _items(self, records: Sequence[Record]) -> Sequence[Sequence[Item]]:
        items = self._embedder.intake.prepare(replace(self._request, inputs=[record.text for record in records]))
        return [[item] for item in items]


def _of_a_row(refusal: AnydimError) -> AnydimError:
    """What is said of the only text of a request, said of a row."""
    told = refusal.message.replace("input[0]", "the text", 1)
    return InvalidRequest(told.replace("send truncate end or start to have it cut", "have --truncate end cut it"))


def in_words(dim: int, dtype: OutputDtype) -> str:
    """What the output holds."""
    return f"vectors of {dim} {dtype.value} components"


def _asked(job: EmbedJob, dim: int) -> dict[str, Any]:
    return {
        "dim": dim,
        "output_dtype": job.output_dtype.value,
        "instruction": job.instruction,
        "prompt_name": job.prompt_name,
        "input_type": job.input_type and job.input_type.value,
        "truncate": job.truncate.value,
        **job.reading_facts(),
    }

"""Batch: OpenAI's batch files. Each line is a request to /v1/embeddings, and is answered with the body that the server
would answer with, in the shape of OpenAI's output files; what is refused goes to the errors file in theirs.

It knows that dialect, an Embedder and records; it knows no files, and not which shard comes next.
Source: https://platform.openai.com/docs/guides/batch and /docs/api-reference/batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, Final

import msgspec

from anydim.api.body import BodyDecoder
from anydim.api.dialects.openai import answer_of, embed_request_of
from anydim.api.dialects.openai_fields import EmbeddingRequest
from anydim.api.models import Models, ServedModel
from anydim.api.status import Dialect, error_response
from anydim.api.vectors import Answer
from anydim.embedder import Embedder
from anydim.errors import AnydimError, ConfigError, InvalidRequest
from anydim.offline.job import Job
from anydim.offline.records import Record
from anydim.offline.shard_work import TERMS, Gained, Made, Shard, facts_of, shard_of
from anydim.offline.shards import Failure, encode_shard
from anydim.offline.writers import LINE, arrow
from anydim.types import Item, Output

URLS: Final = ("/v1/embeddings", "/embeddings")
_METHOD: Final = "POST"


class BatchLine(msgspec.Struct, kw_only=True):
    """One request of a batch file; ``body`` is read when its turn comes."""

    custom_id: str
    method: str = _METHOD
    url: str
    body: msgspec.Raw


class BatchAnswer(msgspec.Struct, kw_only=True):
    """What the server says to one request."""

    status_code: int
    request_id: str
    body: msgspec.Raw


class BatchProblem(msgspec.Struct, kw_only=True):
    """Why there was no request to answer."""

    code: str
    message: str


class BatchResult(msgspec.Struct, kw_only=True):
    """A line of the output or of the errors file."""

    id: str
    custom_id: str | None
    response: BatchAnswer | None = None
    error: BatchProblem | None = None


class BatchWork:
    """Work, see shard_work."""

    def __init__(self, embedder: Embedder, job: Job, aliases: Sequence[str] = ()) -> None:
        """Check the job.

        Args:
            embedder: the model.
            job: its rows are lines.
            aliases: further names of the model that requests may use; ``*`` accepts every name.

        Raises:
            ConfigError: the output is no .jsonl file.
        """
        if job.output.suffix != ".jsonl":
            raise ConfigError(f"{job.output}: answers to a batch file are a .jsonl file")
        self._embedder = embedder
        self._models = Models([ServedModel(intake=embedder.intake, aliases=tuple(aliases), created=0)])
        self._bodies = BodyDecoder(EmbeddingRequest, strict=False)
        rule = embedder.intake.rule
        asked = {"default_dim": rule.default, "dim_step": rule.step, "names": self._models.names, **job.reading_facts()}
        self.facts = facts_of(embedder, rule.default, asked)

    def prepare(self, number: int, records: Sequence[Record]) -> Shard:
        """The longest texts first, whosever they are."""
        return shard_of(
            number,
            records,
            lambda chunk: [self._made(each) for each in chunk],
            lambda place, item: -len(item.ids),
            self._embedder.started.longest,
        )

    def submit(self, shard: Shard) -> Future[list[Output]]:
        """See Work."""
        return self._embedder.submit(shard.items)

    def encode(self, shard: Shard, found: Sequence[Output]) -> Any:
        """See Work."""
        gained = shard.gained(found)
        items = _by_record(shard)
        good = [place for place in sorted(gained) if not isinstance(gained[place], AnydimError)]
        lines = [self._answered(shard.records[place], items[place], gained[place]) for place in good]
        failures = [_failure(record, gained.get(place)) for place, record in enumerate(shard.records)]
        columns = {LINE: arrow().array(lines, arrow().large_binary())}
        return encode_shard(shard.records, good, columns, [failure for failure in failures if failure is not None])

    def _made(self, record: Record) -> Made:
        try:
            line = _line_of(record)
            if line.method != _METHOD:
                raise InvalidRequest(f"method must be POST, got {line.method[:20]!r}", "method")
            if line.url not in URLS:
                raise InvalidRequest(f"url must be {URLS[0]}, got {line.url[:80]!r}", "url")
            wanted = self._bodies.decode(bytes(line.body))
            _, intake = self._models.embedder(wanted.model)
            return intake.prepare(embed_request_of(wanted, TERMS))
        except AnydimError as error:
            return error

    def _answered(self, record: Record, items: Sequence[Item], gained: Gained) -> bytes:
        assert not isinstance(gained, AnydimError), "only what was gained is answered"
        line = _line_of(record)
        answer = Answer(self._models.first.names[0], items, gained)
        body = msgspec.json.encode(answer_of(answer, self._bodies.decode(bytes(line.body))))
        told = BatchAnswer(status_code=200, request_id=_id("req", record), body=msgspec.Raw(body))
        return _encoded(BatchResult(id=_id("batch_req", record), custom_id=line.custom_id, response=told))


def is_batch(line: str) -> bool:
    """Whether a first line is one of a batch file."""
    try:
        msgspec.json.decode(line, type=BatchLine)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _line_of(record: Record) -> BatchLine:
    """The request of a line.

    Raises:
        InvalidRequest: it is none.
    """
    try:
        return msgspec.json.decode(record.text, type=BatchLine)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the line is no request: {error}") from None


def _by_record(shard: Shard) -> dict[int, list[Item]]:
    """The Items of each record, in their own order."""
    parts: dict[int, dict[int, Item]] = {}
    for (place, index), item in zip(shard.owners, shard.items, strict=True):
        parts.setdefault(place, {})[index] = item
    return {place: [items[index] for index in range(len(items))] for place, items in parts.items()}


def _failure(record: Record, gained: Gained | None) -> Failure | None:
    """The entry of a record in the errors file; None where it has an answer."""
    why = gained.message if isinstance(gained, AnydimError) else record.problem
    if not why:
        return None
    result = BatchResult(id=_id("batch_req", record), custom_id=_custom_id(record))
    if isinstance(gained, AnydimError) and result.custom_id is not None:
        refusal = error_response(gained, Dialect.OPENAI)
        body = msgspec.Raw(bytes(refusal.body))
        result.response = BatchAnswer(status_code=refusal.status_code, request_id=_id("req", record), body=body)
    else:
        result.error = BatchProblem(code="invalid_json_line", message=f"{record.where}: {why}")
    return Failure(record.row, record.where, why, msgspec.json.decode(msgspec.json.encode(result)))


def _custom_id(record: Record) -> str | None:
    try:
        return _line_of(record).custom_id
    except InvalidRequest:
        return None


def _id(prefix: str, record: Record) -> str:
    """An id that is the same when the job is done again."""
    seed = f"{record.row}\0{record.text}".encode("utf-8", "surrogatepass")
    return f"{prefix}_{hashlib.blake2b(seed, digest_size=16).hexdigest()}"


def _encoded(result: BatchResult) -> bytes:
    return msgspec.json.encode(result) + b"\n"

"""Service: what the routes of all dialects share, from a body to an Answer.

It knows models, an engine and the order of the steps; it knows no dialect's fields.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from anydim.api.body import BodyDecoder, read_body
from anydim.api.models import Models, ServedModel
from anydim.api.observe import reserve_answer
from anydim.api.status import Dialect
from anydim.api.terms import terms_of
from anydim.api.vectors import Answer, refuse_failed
from anydim.api.waiting import in_thread_if, run_for_client
from anydim.config import ServerSettings
from anydim.engine.handle import EngineHandle
from anydim.errors import InvalidRequest
from anydim.intake.request import EmbedRequest, ScoreRequest
from anydim.intake.vocabulary import Vocabulary
from anydim.types import Item, Terms

T = TypeVar("T", bound=msgspec.Struct)
Struct = TypeVar("Struct", bound=msgspec.Struct)

_FLOAT32: Final = 4  # bytes
_SMALL_BODY: Final = 4_000  # bytes that are decoded and tokenised faster than a thread takes over


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """A request that is ready to run.

    Attributes:
        wanted: its fields.
        served: the model that it is for.
        items: what the engine runs.
        field: the name of its texts, for errors.
    """

    wanted: T
    served: ServedModel
    items: Sequence[Item]
    field: str = "input"


Prepare = Callable[[Request, bytes], Job[T]]


class Service:
    """Models behind one engine."""

    def __init__(self, models: Models, engine: EngineHandle, settings: ServerSettings) -> None:
        """Serve models with one engine."""
        self.models = models
        self._engine = engine
        self._limit = settings.max_body_bytes
        self._most_answer = settings.max_answer_bytes
        self._strict = settings.strict
        self._vocabularies: dict[str, Vocabulary] = {}

    def decoder(self, struct: type[Struct]) -> BodyDecoder[Struct]:
        """What reads a struct from a body, as strictly as the server was told to."""
        return BodyDecoder(struct, self._strict)

    async def read(self, request: Request) -> bytes:
        """The body of a request.

        Raises:
            BodyTooLarge, HTTPException, ClientDisconnect: see ``read_body``.
        """
        return await read_body(request, self._limit)

    async def run(self, request: Request, prepare: Prepare[T], body: bytes | None = None) -> tuple[Job[T], Answer]:
        """Read, prepare and run a request.

        Args:
            request: the request.
            prepare: its body to a Job; runs in a thread where the body is large.
            body: the body, where it was read already.

        Raises:
            AnydimError: whatever is wrong with the request, or keeps the engine from answering it.
        """
        if body is None:
            body = await self.read(request)
        job = await in_thread_if(len(body) > _SMALL_BODY, prepare, request, body)
        self._admit_answer(job)
        outputs = await run_for_client(self._engine, job.items, request.receive)
        refuse_failed(outputs, job.field)
        return job, Answer(job.served.names[0], job.items, outputs)

    def _admit_answer(self, job: Job[T]) -> None:
        """Bound what answers with a vector a token hold.

        Raises:
            InvalidRequest: this one alone is too large.
            Overloaded: all of them together are.
        """
        if not job.items[0].each_token:
            return
        tokens = sum(len(item.ids) for item in job.items)
        size = sum(len(item.ids) * item.dim for item in job.items) * _FLOAT32
        if size > self._most_answer:
            raise InvalidRequest(
                f"the answer would hold {tokens} vectors, {size} bytes of float32, and this server answers with at "
                f"most {self._most_answer} (--max-answer-bytes): send fewer texts, or ask for fewer dimensions",
                job.field,
            )
        reserve_answer(size)

    def embed(self, wanted: T, name: str | None, request: EmbedRequest, field: str = "input") -> Job[T]:
        """The Job of an embedding request; ``field`` is the name of its texts."""
        served, intake = self.models.embedder(name)
        return Job(wanted, served, intake.prepare(request), field)

    def rerank(self, wanted: T, name: str | None, request: ScoreRequest) -> Job[T]:
        """The Job of a reranking request."""
        served, intake = self.models.reranker(name)
        return Job(wanted, served, intake.prepare(request), request.field)

    def vocabulary(self, served: ServedModel) -> Vocabulary:
        """The tokens of a model; loaded when they are first asked for."""
        if served.id not in self._vocabularies:
            self._vocabularies[served.id] = Vocabulary(served.intake.card.tokenizer_file)
        return self._vocabularies[served.id]


def terms(request: Request, wanted: Any) -> Terms:
    """The terms of a request whose fields may have ``priority`` and ``timeout``."""
    return terms_of(request, getattr(wanted, "priority", None), getattr(wanted, "timeout", None))


def speaks(request: Request, dialect: Dialect) -> None:
    """Answer this request's errors in a dialect from now on."""
    request.state.dialect = dialect


def has_any(body: bytes, names: Collection[str]) -> bool:
    """Whether a body is an object with one of these fields; false for what is no JSON, which its decoder refuses."""
    if not any(name.encode() in body for name in names):
        return False
    try:
        fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return any(name in fields and fields[name] != b"null" for name in names)


def new_id(prefix: str = "") -> str:
    """An id for an answer."""
    return prefix + uuid.uuid4().hex


def json_response(value: Any) -> Response:
    """A struct, or lists and objects of them, as JSON."""
    return Response(msgspec.json.encode(value), media_type="application/json")

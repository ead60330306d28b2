"""OpenAI's dialect: POST /v1/embeddings and GET /v1/models, with our extensions, and Jina's at the same path.

It knows OpenAI's fields and defaults: a text that is too long is refused unless `truncate` says otherwise. A field that
only Jina has makes the errors Jina's.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final, cast

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from anydim.api.arrow import arrow_response
from anydim.api.dialects.inputs import list_of, truncation
from anydim.api.dialects.openai_fields import (
    EmbeddingList,
    EmbeddingRequest,
    EmbeddingRow,
    ModelInfo,
    ModelList,
    Usage,
)
from anydim.api.models import ServedModel
from anydim.api.operations import Operation
from anydim.api.service import Job, Service, has_any, json_response, speaks
from anydim.api.status import Dialect
from anydim.api.terms import terms_of
from anydim.api.vectors import Answer, Form, json_base64, json_numbers, raw_response, wanted_form
from anydim.api.waiting import in_thread_if
from anydim.errors import InvalidRequest
from anydim.intake.intake import Intake
from anydim.intake.request import EmbedRequest, InputType
from anydim.types import OutputDtype, Terms

_SMALL_ANSWER: Final = 65_536  # components that are written faster than a thread takes over
_JINA: Final = ("task", "embedding_type", "normalized", "late_chunking")
_TASKS: Final = MappingProxyType({"retrieval.query": InputType.QUERY, "retrieval.passage": InputType.DOCUMENT})
_TYPES: Final = MappingProxyType(
    {
        "float": OutputDtype.FLOAT32,
        "base64": OutputDtype.FLOAT32,
        "binary": OutputDtype.BINARY,
        "ubinary": OutputDtype.UBINARY,
    }
)


class OpenAIRoutes:
    """OpenAI's routes."""

    def __init__(self, service: Service) -> None:
        """Serve the models of a service."""
        self._service = service
        self._decoder = service.decoder(EmbeddingRequest)

    def operations(self) -> list[Operation]:
        """Each route with and without the /v1 prefix."""
        return [*self._of("/v1", ""), *self._of("", "_without_prefix")]

    def _of(self, prefix: str, suffix: str) -> list[Operation]:
        first = self._service.models.first
        dims = {"dimensions": first.intake.rule.step} if isinstance(first.intake, Intake) else {}
        forms = {str(form): {"type": "string", "format": "binary"} for form in (Form.RAW, Form.ARROW)}
        return [
            Operation(
                path=f"{prefix}/embeddings",
                name="create_embeddings" + suffix,
                summary="Embed texts (OpenAI, Jina).",
                dialect=Dialect.OPENAI,
                handler=self.embeddings,
                body=EmbeddingRequest,
                answer=EmbeddingList,
                content=MappingProxyType(forms),
                example={"model": first.names[0], "input": ["first text", "second text"], **dims},
                also=(422,),
            ),
            Operation(
                path=f"{prefix}/models",
                name="list_models" + suffix,
                summary="The served models' names.",
                handler=self.models,
                answer=ModelList,
                only=(401, 405),
                method="GET",
                dialect=Dialect.OPENAI,
            ),
            Operation(
                path=f"{prefix}/models/{{name:path}}",
                name="get_model" + suffix,
                summary="One name of a served model; it may hold slashes.",
                handler=self.model,
                answer=ModelInfo,
                only=(401, 404, 405),
                method="GET",
                dialect=Dialect.OPENAI,
            ),
        ]

    async def embeddings(self, request: Request) -> Response:
        """POST /v1/embeddings."""
        form = wanted_form(request.headers.get("accept", ""))
        body = await self._service.read(request)
        if has_any(body, _JINA):
            speaks(request, Dialect.JINA)
        job, answer = await self._service.run(request, self._prepare, body)
        large = answer.components > _SMALL_ANSWER
        return await in_thread_if(large, _response, answer, form, job.wanted)

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        found = [_info(served, name) for served in self._service.models for name in served.names]
        return json_response(ModelList(data=found))

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{id}; the id may hold slashes."""
        name = request.path_params["name"]
        return json_response(_info(self._service.models.find(name), name))

    def _prepare(self, request: Request, body: bytes) -> Job[EmbeddingRequest]:
        wanted = self._decoder.decode(body)
        terms = terms_of(request, wanted.priority, wanted.timeout)
        return self._service.embed(wanted, wanted.model, embed_request_of(wanted, terms))


def _info(served: ServedModel, name: str) -> ModelInfo:
    intake = served.intake
    info = ModelInfo(
        id=name,
        created=served.created,
        root=served.id,
        max_tokens=served.max_tokens,
        prompts=sorted(intake.card.prompts),
        instructions=intake.card.instruction_template is not None,
    )
    if isinstance(intake, Intake):
        rule = intake.rule
        info.width, info.dimensions, info.dim_step, info.default_dim = rule.width, rule.allowed, rule.step, rule.default
    else:
        info.task = "rerank" if intake.scorer.is_reranker else "classify"
        info.instructions = intake.scorer.is_prompted
        info.labels = list(intake.scorer.labels)
    return info


def embed_request_of(wanted: EmbeddingRequest, terms: Terms) -> EmbedRequest:
    """What a body asks of the model.

    Raises:
        InvalidRequest: its fields contradict each other, or ask for what there is not.
    """
    if wanted.late_chunking:
        raise InvalidRequest("late_chunking is not supported", "late_chunking")
    if None not in (wanted.normalize, wanted.normalized) and wanted.normalize != wanted.normalized:
        raise InvalidRequest("normalize and normalized differ", "normalized")
    return EmbedRequest(
        inputs=list_of(wanted.input, "input"),
        output_dim=wanted.output_dim,
        dimensions=wanted.dimensions,
        output_dtype=_dtype(wanted),
        normalize=wanted.normalize is not False and wanted.normalized is not False,
        instruction=wanted.instruction,
        prompt_name=wanted.prompt_name,
        input_type=InputType(wanted.input_type) if wanted.input_type else _TASKS.get(wanted.task or ""),
        truncate=truncation(wanted.truncate),
        terms=terms,
    )


def _jina_type(wanted: EmbeddingRequest) -> str | None:
    """Jina's one type of vectors.

    Raises:
        InvalidRequest: it names none that is known, or several.
    """
    given = wanted.embedding_type
    names = [given] if isinstance(given, str) else given or []
    if len(names) > 1 or any(name not in _TYPES for name in names):
        raise InvalidRequest(f"embedding_type must be one of {', '.join(_TYPES)}", "embedding_type")
    return names[0] if names else None


def _dtype(wanted: EmbeddingRequest) -> OutputDtype:
    name = _jina_type(wanted)
    if name is not None and wanted.output_dtype is None:
        return _TYPES[name]
    return OutputDtype(wanted.output_dtype or OutputDtype.FLOAT32)


def _is_base64(wanted: EmbeddingRequest) -> bool:
    return wanted.encoding_format == "base64" or (wanted.encoding_format is None and _jina_type(wanted) == "base64")


def _response(answer: Answer, form: Form, wanted: EmbeddingRequest) -> Response:
    if form is Form.RAW:
        return raw_response(answer)
    if form is Form.ARROW:
        return arrow_response(answer)
    return json_response(answer_of(answer, wanted))


def answer_of(answer: Answer, wanted: EmbeddingRequest) -> EmbeddingList:
    """The body of an answer, with vectors as the request wants them written."""
    written = json_base64 if _is_base64(wanted) else json_numbers
    rows = [
        EmbeddingRow(
            index=index,
            # Raw JSON stands for the list or the string that the schema promises.
            embedding=cast(str, written(output.values)),
            scale=UNSET if output.scale is None else output.scale,
        )
        for index, output in enumerate(answer.outputs)
    ]
    usage = Usage(prompt_tokens=answer.tokens, total_tokens=answer.tokens)
    return EmbeddingList(data=rows, model=answer.model, usage=usage)

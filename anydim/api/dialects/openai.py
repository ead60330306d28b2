"""OpenAI's dialect: POST /v1/embeddings and GET /v1/models, with our extensions.

It knows OpenAI's fields and defaults: a text that is too long is refused unless `truncate` says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from anydim.api.arrow import arrow_response
from anydim.api.body import BodyDecoder, read_body, wrong_type
from anydim.api.dialects.openai_fields import (
    EmbeddingList,
    EmbeddingRequest,
    EmbeddingRow,
    ModelInfo,
    ModelList,
    Usage,
)
from anydim.api.models import ServedModel
from anydim.api.terms import terms_of
from anydim.api.vectors import Answer, Form, json_base64, json_numbers, raw_response, refuse_failed, wanted_form
from anydim.api.waiting import in_thread_if, run_for_client
from anydim.config import ServerSettings
from anydim.engine.handle import EngineHandle
from anydim.intake.request import EmbedRequest, InputType, Truncate
from anydim.types import Item, OutputDtype, Terms

_SMALL_BODY: Final = 4_000  # bytes that are decoded and tokenised faster than a thread takes over
_SMALL_ANSWER: Final = 65_536  # components that are written faster than a thread takes over
_JSON: Final = "application/json"


class OpenAIRoutes:
    """The routes of one served model."""

    def __init__(self, served: ServedModel, engine: EngineHandle, settings: ServerSettings) -> None:
        """Serve one model with one engine."""
        self._served = served
        self._engine = engine
        self._limit = settings.max_body_bytes
        self._decoder = BodyDecoder(EmbeddingRequest, settings.strict)

    def routes(self) -> list[Route]:
        """Each route with and without the /v1 prefix."""
        found = []
        for prefix in ("/v1", ""):
            found += [
                Route(f"{prefix}/embeddings", self.embeddings, methods=["POST"]),
                Route(f"{prefix}/models", self.models, methods=["GET"]),
                Route(f"{prefix}/models/{{name:path}}", self.model, methods=["GET"]),
            ]
        return found

    async def embeddings(self, request: Request) -> Response:
        """POST /v1/embeddings."""
        form = wanted_form(request.headers.get("accept", ""))
        body = await read_body(request, self._limit)
        wanted, items = await in_thread_if(len(body) > _SMALL_BODY, self._prepare, request, body)
        outputs = await run_for_client(self._engine, items, request.receive)
        refuse_failed(outputs)
        answer = Answer(self._served.names[0], items, outputs)
        large = answer.components > _SMALL_ANSWER
        return await in_thread_if(large, _response, answer, form, wanted.encoding_format == "base64")

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        names = self._served.names
        return _json(ModelList(data=[self._info(name) for name in names]))

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{id}; the id may hold slashes."""
        name = request.path_params["name"]
        self._served.check(name)
        return _json(self._info(name))

    def _prepare(self, request: Request, body: bytes) -> tuple[EmbeddingRequest, list[Item]]:
        wanted = self._decoder.decode(body)
        self._served.check(wanted.model)
        terms = terms_of(request, wanted.priority, wanted.timeout)
        return wanted, self._served.intake.prepare(_embed_request(wanted, terms))

    def _info(self, name: str) -> ModelInfo:
        intake = self._served.intake
        return ModelInfo(
            id=name,
            created=self._served.created,
            root=self._served.id,
            max_tokens=intake.tokenizer.max_tokens,
            width=intake.rule.width,
            dimensions=intake.rule.allowed,
            default_dim=intake.rule.default,
            prompts=sorted(intake.card.prompts),
            instructions=intake.card.instruction_template is not None,
        )


def _embed_request(wanted: EmbeddingRequest, terms: Terms) -> EmbedRequest:
    return EmbedRequest(
        inputs=_inputs(wanted.input),
        output_dim=wanted.output_dim,
        dimensions=wanted.dimensions,
        output_dtype=OutputDtype(wanted.output_dtype or OutputDtype.FLOAT32),
        normalize=wanted.normalize is not False,
        instruction=wanted.instruction,
        prompt_name=wanted.prompt_name,
        input_type=InputType(wanted.input_type) if wanted.input_type else None,
        truncate=_truncate(wanted.truncate),
        terms=terms,
    )


def _inputs(given: str | list[Any]) -> Sequence[str] | Sequence[Sequence[int]]:
    """Texts or lists of ids; a single text or list of ids becomes a list of one.

    Raises:
        InvalidRequest: the entries are of several types.
    """
    if isinstance(given, str):
        return [given]
    kinds = {type(entry) for entry in given}
    if len(kinds) > 1:
        first = type(given[0])
        index = next(index for index, entry in enumerate(given) if type(entry) is not first)
        raise wrong_type(f"input[{index}]", [_name(first)], _name(type(given[index])))
    return cast(Sequence[Sequence[int]], [given] if kinds == {int} else given)


def _name(kind: type) -> str:
    return {str: "string", int: "integer"}.get(kind, "array")


def _truncate(given: bool | str | None) -> Truncate:
    if isinstance(given, str):
        return Truncate(given)
    return Truncate.END if given else Truncate.NONE


def _response(answer: Answer, form: Form, base64: bool) -> Response:
    if form is Form.RAW:
        return raw_response(answer)
    if form is Form.ARROW:
        return arrow_response(answer)
    written = json_base64 if base64 else json_numbers
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
    return _json(EmbeddingList(data=rows, model=answer.model, usage=usage))


def _json(value: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(value), media_type=_JSON)

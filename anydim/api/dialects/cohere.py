"""Cohere's embedding routes: POST /v2/embed and /v1/embed. Reranking is in rerank.py.

It knows Cohere's fields and defaults: texts that are too long are cut at their end, and one request may ask for
several types of the same vectors.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from anydim.api.dialects.cohere_fields import CohereEmbeddings, CohereEmbedRequest, CohereEmbedResponse
from anydim.api.dialects.rerank_fields import ApiVersion, BilledUnits, CohereMeta, TokenCount
from anydim.api.operations import Operation
from anydim.api.service import Job, Service, json_response, new_id
from anydim.api.status import Dialect
from anydim.api.terms import terms_of
from anydim.api.vectors import Answer, json_base64, json_numbers
from anydim.errors import InvalidRequest
from anydim.intake.request import EmbedRequest, InputType, Truncate
from anydim.types import OutputDtype

_TYPES: Final = MappingProxyType(
    {
        "float": OutputDtype.FLOAT32,
        "base64": OutputDtype.FLOAT32,
        "int8": OutputDtype.INT8,
        "uint8": OutputDtype.UINT8,
        "binary": OutputDtype.BINARY,
        "ubinary": OutputDtype.UBINARY,
    }
)
INPUT_TYPES: Final = MappingProxyType(
    {"search_query": InputType.QUERY, "search_document": InputType.DOCUMENT} | {each.value: each for each in InputType}
)


class CohereRoutes:
    """Cohere's embedding routes."""

    def __init__(self, service: Service) -> None:
        """Serve the models of a service."""
        self._service = service
        self._decoder = service.decoder(CohereEmbedRequest)

    def operations(self) -> list[Operation]:
        """The routes."""
        example = {"texts": ["first text", "second text"], "input_type": "search_document"}
        return [
            Operation(
                path=f"/v{version}/embed",
                name=f"cohere_embed_v{version}",
                summary=f"Embed texts (Cohere v{version}).",
                dialect=Dialect.COHERE,
                handler=handler,
                body=CohereEmbedRequest,
                answer=CohereEmbedResponse,
                example=example,
            )
            for version, handler in ((1, self.embed_v1), (2, self.embed_v2))
        ]

    async def embed_v1(self, request: Request) -> Response:
        """POST /v1/embed."""
        job, answer = await self._service.run(request, self._prepare)
        if job.wanted.embedding_types is None:
            floats = [json_numbers(output.values) for output in answer.outputs]
            return _response(job, answer, "1", "embeddings_floats", floats)
        return _response(job, answer, "1", "embeddings_by_type", _by_type(job, answer))

    async def embed_v2(self, request: Request) -> Response:
        """POST /v2/embed."""
        job, answer = await self._service.run(request, self._prepare)
        return _response(job, answer, "2", "embeddings_by_type", _by_type(job, answer))

    def _prepare(self, request: Request, body: bytes) -> Job[CohereEmbedRequest]:
        wanted = self._decoder.decode(body)
        terms = terms_of(request, None if not wanted.priority else "low")
        texts = _texts(wanted)
        served, intake = self._service.models.embedder(wanted.model)
        items = [
            item
            for dtype in _dtypes(wanted)
            for item in intake.prepare(
                EmbedRequest(
                    inputs=texts,
                    dimensions=wanted.output_dimension,
                    output_dtype=dtype,
                    output_dim=wanted.output_dim,
                    instruction=wanted.instruction,
                    prompt_name=wanted.prompt_name,
                    input_type=INPUT_TYPES.get(wanted.input_type or ""),
                    truncate=Truncate((wanted.truncate or "END").lower()),
                    terms=terms,
                )
            )
        ]
        return Job(wanted, served, items, "texts")


def _dtypes(wanted: CohereEmbedRequest) -> list[OutputDtype]:
    """What the engine is asked for: each type once; equal texts share a forward."""
    return list(dict.fromkeys(_TYPES[name] for name in wanted.embedding_types or ["float"]))


def _texts(wanted: CohereEmbedRequest) -> list[str]:
    if wanted.images:
        raise InvalidRequest("images cannot be embedded: the models read text", "images")
    if (wanted.texts is None) == (wanted.inputs is None):
        raise InvalidRequest("exactly one of texts and inputs must be given", "texts")
    if wanted.texts is not None:
        return wanted.texts
    return [_text(entry, place) for place, entry in enumerate(wanted.inputs or [])]


def _text(entry: dict[str, Any], place: int) -> str:
    content = entry.get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    texts = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text"]
    if len(texts) != len(parts) or not all(isinstance(text, str) for text in texts):
        raise InvalidRequest(f"inputs[{place}].content must be text: the models read text only", f"inputs[{place}]")
    return "\n".join(map(str, texts))


def _by_type(job: Job[CohereEmbedRequest], answer: Answer) -> CohereEmbeddings:
    count = len(answer.items) // len(_dtypes(job.wanted))
    starts = {dtype: place * count for place, dtype in enumerate(_dtypes(job.wanted))}
    found: dict[str, Any] = {}
    for name in job.wanted.embedding_types or ["float"]:
        start = starts[_TYPES[name]]
        write = json_base64 if name == "base64" else json_numbers
        found[name] = [write(output.values) for output in answer.outputs[start : start + count]]
    return CohereEmbeddings(**found)


def _response(job: Job[CohereEmbedRequest], answer: Answer, version: str, kind: Any, embeddings: Any) -> Response:
    tokens = answer.tokens // len(_dtypes(job.wanted))
    meta = CohereMeta(
        api_version=ApiVersion(version=version),
        billed_units=BilledUnits(input_tokens=tokens),
        tokens=TokenCount(input_tokens=tokens),
    )
    texts = _texts(job.wanted)
    return json_response(
        CohereEmbedResponse(id=new_id(), response_type=kind, embeddings=embeddings, texts=texts, meta=meta)
    )

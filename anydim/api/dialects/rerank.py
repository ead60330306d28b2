"""Reranking for the clients of Cohere, Jina and vLLM: POST /v1/rerank, /v2/rerank and /rerank.

/v1/rerank answers the union that satisfies Cohere's v1 and Jina's clients, /v2/rerank what Cohere's v2 does, /rerank
what Jina does; a body with TEI's `texts` goes to TEI's dialect. It knows these fields and nothing of how models score.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from anydim.api.dialects.rerank_fields import (
    ApiVersion,
    BilledUnits,
    CohereMeta,
    CohereRerankResponse,
    RerankRequest,
    RerankResponse,
    RerankResult,
    RerankUsage,
    TokenCount,
)
from anydim.api.operations import Operation
from anydim.api.service import Job, Service, json_response, new_id
from anydim.api.status import Dialect
from anydim.api.terms import terms_of
from anydim.api.vectors import Answer
from anydim.errors import InvalidRequest
from anydim.intake.request import ScoreRequest, Truncate

_COHERE_TOKENS: Final = 4096  # of a document, by Cohere's documentation of v2


class RerankRoutes:
    """The routes of three dialects that name their documents alike."""

    def __init__(self, service: Service) -> None:
        """Serve the models of a service."""
        self._service = service
        self._decoder = service.decoder(RerankRequest)

    def operations(self) -> list[Operation]:
        """The routes."""
        example = {"query": "What is the capital of China?", "documents": ["It is Beijing.", "Gravity is a force."]}
        union, cohere = Dialect.COHERE_JINA, Dialect.COHERE
        return [
            Operation(
                path="/v1/rerank",
                name="rerank",
                summary="Order documents by relevance (Cohere v1, Jina).",
                dialect=union,
                handler=self.union,
                body=RerankRequest,
                answer=RerankResponse,
                example=example,
            ),
            Operation(
                path="/v2/rerank",
                name="rerank_v2",
                summary="Order documents by relevance (Cohere v2).",
                dialect=cohere,
                handler=self.cohere,
                body=RerankRequest,
                answer=CohereRerankResponse,
                example=example,
            ),
        ]

    async def union(self, request: Request) -> Response:
        """POST /v1/rerank, and /rerank with `documents`."""
        return await self.union_of(request, None)

    async def union_of(self, request: Request, body: bytes | None) -> Response:
        """The same of a body that was read already."""
        job, answer = await self._service.run(request, self._prepare, body)
        response = RerankResponse(
            id=new_id(),
            model=answer.model,
            usage=RerankUsage(prompt_tokens=answer.tokens, total_tokens=answer.tokens),
            results=_results(job.wanted, answer, bool(job.wanted.return_documents)),
            meta=_meta(answer, "1"),
        )
        return json_response(response)

    async def cohere(self, request: Request) -> Response:
        """POST /v2/rerank."""
        job, answer = await self._service.run(request, self._prepare_v2)
        results = _results(job.wanted, answer, with_documents=False)
        return json_response(CohereRerankResponse(id=new_id(), results=results, meta=_meta(answer, "2")))

    def _prepare(self, request: Request, body: bytes) -> Job[RerankRequest]:
        return self._job(request, self._decoder.decode(body), None)

    def _prepare_v2(self, request: Request, body: bytes) -> Job[RerankRequest]:
        return self._job(request, self._decoder.decode(body), _COHERE_TOKENS)

    def _job(self, request: Request, wanted: RerankRequest, most_tokens: int | None) -> Job[RerankRequest]:
        score = ScoreRequest(
            queries=[wanted.query],
            documents=[_text(document, place, wanted.rank_fields) for place, document in enumerate(wanted.documents)],
            instruction=wanted.instruction,
            truncate=_truncate(wanted),
            max_document_tokens=wanted.max_tokens_per_doc or most_tokens,
            squash=not wanted.raw_scores,
            terms=terms_of(request, _priority(wanted.priority), wanted.timeout),
        )
        return self._service.rerank(wanted, wanted.model, score)


def _text(document: str | dict[str, Any], place: int, fields: list[str] | None) -> str:
    """The text of a document; of an object the fields that are asked for, one a line."""
    if isinstance(document, str):
        return document
    names = fields or ["text"]
    found = [str(document[name]) for name in names if document.get(name) is not None]
    if not found:
        raise InvalidRequest(f"documents[{place}] has none of the fields {', '.join(names)}", f"documents[{place}]")
    return "\n".join(found)


def _truncate(wanted: RerankRequest) -> Truncate:
    if isinstance(wanted.truncate, str):
        return Truncate(wanted.truncate)
    refuses = wanted.truncate is False or (wanted.truncate is None and wanted.truncation is False)
    return Truncate.NONE if refuses else Truncate.END


def _priority(given: str | int | None) -> str | None:
    return given if given is None or isinstance(given, str) else "low" if given > 0 else "normal"


def _results(wanted: RerankRequest, answer: Answer, with_documents: bool) -> list[RerankResult]:
    scores = answer.scores
    return [
        RerankResult(
            index=place,
            relevance_score=scores[place],
            document=_shown(wanted.documents[place]) if with_documents else UNSET,
        )
        for place in answer.order(wanted.top_n)
    ]


def _shown(document: str | dict[str, Any]) -> dict[str, Any]:
    return {"text": document} if isinstance(document, str) else document


def _meta(answer: Answer, version: str) -> CohereMeta:
    return CohereMeta(
        api_version=ApiVersion(version=version),
        billed_units=BilledUnits(search_units=1),
        tokens=TokenCount(input_tokens=answer.tokens),
    )

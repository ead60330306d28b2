"""Paths that dialects share: the owner's shape holds until a field that only another dialect has is seen.

    /rerank      Jina (and vLLM) with `documents`; TEI with `texts`
    /tokenize    vLLM with `prompt`; TEI with `inputs`
    POST /       TEI's alone: what the clients of the hub's inference interface send

/v1/embeddings (OpenAI; Jina with `task`, `embedding_type`, `normalized` or `late_chunking`) and /v1/rerank (one answer
for Cohere's and Jina's clients) have one handler each. It knows which field decides; the answers are in the dialects.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from anydim.api.dialects.rerank import RerankRoutes
from anydim.api.dialects.rerank_fields import RerankRequest, RerankResponse
from anydim.api.dialects.tei import TeiRoutes
from anydim.api.dialects.tei_fields import TeiEmbedRequest, TeiRank, TeiRerankRequest, TeiToken, TeiTokenizeRequest
from anydim.api.dialects.vllm import VllmRoutes
from anydim.api.dialects.vllm_fields import VllmTokenizeRequest, VllmTokenizeResponse
from anydim.api.operations import Operation
from anydim.api.service import Service, has_any, speaks
from anydim.api.status import Dialect


class SharedRoutes:
    """Routes that look at the body before they choose a dialect."""

    def __init__(self, service: Service, rerank: RerankRoutes, tei: TeiRoutes, vllm: VllmRoutes) -> None:
        """Choose between dialects of a service."""
        self._service = service
        self._rerank = rerank
        self._tei = tei
        self._vllm = vllm

    def operations(self) -> list[Operation]:
        """The routes."""
        return [
            Operation(
                path="/rerank",
                name="rerank_unversioned",
                summary="Order documents by relevance (Jina, vLLM; with `texts` TEI).",
                dialect=Dialect.JINA,
                handler=self.rerank,
                body=RerankRequest,
                bodies=(TeiRerankRequest,),
                answer=RerankResponse | list[TeiRank],
                example={"query": "What is the capital of China?", "documents": ["It is Beijing.", "Gravity."]},
            ),
            Operation(
                path="/tokenize",
                name="tokenize",
                summary="Tokenise a text (vLLM; with `inputs` TEI).",
                dialect=Dialect.VLLM,
                handler=self.tokenize,
                body=VllmTokenizeRequest,
                bodies=(TeiTokenizeRequest,),
                answer=VllmTokenizeResponse | list[list[TeiToken]],
                example={"prompt": "The capital of China is Beijing."},
            ),
            Operation(
                path="/",
                name="tei_root",
                summary="Embed, compare, classify or rerank, as the body asks (TEI).",
                dialect=Dialect.TEI,
                handler=self._tei.root,
                body=TeiEmbedRequest,
                bodies=(TeiRerankRequest,),
                example={"inputs": "a text"},
            ),
        ]

    async def rerank(self, request: Request) -> Response:
        """POST /rerank."""
        body = await self._service.read(request)
        if has_any(body, ["texts"]):
            speaks(request, Dialect.TEI)
            return await self._tei.rerank_of(request, body)
        return await self._rerank.union_of(request, body)

    async def tokenize(self, request: Request) -> Response:
        """POST /tokenize."""
        body = await self._service.read(request)
        if has_any(body, ["inputs"]):
            speaks(request, Dialect.TEI)
            return await self._tei.tokenize_of(request, body)
        return await self._vllm.tokenize_of(request, body)

"""The fields of the reranking routes of Cohere, Jina and vLLM, with our extensions.

It knows names, types and documentation. Source: docs.cohere.com/reference/rerank (v1 and v2), api.jina.ai/redoc.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Count = Annotated[int, Meta(ge=1)]
Documents = list[str | dict[str, Any]]

_INSTRUCTION = Meta(
    description="What makes a document relevant, for models trained with instructions; the model's default otherwise.",
    examples=["Given a web search query, retrieve relevant passages that answer the query"],
)


class RerankRequest(msgspec.Struct, kw_only=True):
    """A query, and documents to order by relevance. Every field but these two may be left out or null."""

    query: Annotated[str, Meta(description="The query.", examples=["What is the capital of China?"])]
    documents: Annotated[
        Documents,
        Meta(
            description="Texts, or objects with a `text` (or the fields that rank_fields names).",
            examples=[["The capital of China is Beijing.", "Gravity is a force."]],
        ),
    ]
    model: Annotated[str | None, Meta(description="A name of a served reranker; absent picks the default.")] = None
    top_n: Annotated[Count | None, Meta(description="How many results to return; all by default.")] = None
    return_documents: Annotated[bool | None, Meta(description="Whether results hold the documents.")] = None
    rank_fields: Annotated[
        list[str] | None, Meta(description="The fields of document objects to read, one a line; `text` by default.")
    ] = None
    max_tokens_per_doc: Annotated[
        Count | None, Meta(description="Longer documents are cut to so many tokens; at /v2/rerank 4096 by default.")
    ] = None
    max_chunks_per_doc: Annotated[int | None, Meta(description="Accepted and not used.")] = None
    truncate: Annotated[
        bool | Literal["end", "start", "none"] | None,
        Meta(description="Where documents that are too long are cut: end (the default) or start; none refuses them."),
    ] = None
    truncation: Annotated[bool | None, Meta(description="false means the same as truncate none.")] = None
    instruction: Annotated[str | None, _INSTRUCTION] = None
    raw_scores: Annotated[
        bool | None, Meta(description="Whether scores are the model's own numbers; between 0 and 1 by default.")
    ] = None
    priority: Annotated[
        Literal["high", "normal", "low"] | int | None,
        Meta(description="How urgent it is beside other requests: normal; of Cohere's numbers 0 is normal, more low."),
    ] = None
    timeout: Annotated[
        float | None, Meta(description="Seconds after which nobody waits for the answer: it becomes a 504.")
    ] = None


class RerankResult(msgspec.Struct, kw_only=True):
    """One document's place and score."""

    index: Annotated[int, Meta(description="Its place among the documents of the request.")]
    relevance_score: float
    document: Annotated[
        dict[str, Any] | UnsetType, Meta(description="The document, where return_documents is true.")
    ] = UNSET


class RerankUsage(msgspec.Struct, kw_only=True):
    """Tokens of all pairs, prompt included, after truncation; whatever work they shared."""

    prompt_tokens: int
    total_tokens: int


class ApiVersion(msgspec.Struct, kw_only=True):
    """Cohere's version."""

    version: str


class BilledUnits(msgspec.Struct, kw_only=True):
    """What Cohere's clients expect to read; nothing is billed."""

    search_units: int | UnsetType = UNSET
    input_tokens: int | UnsetType = UNSET


class TokenCount(msgspec.Struct, kw_only=True):
    """Tokens read."""

    input_tokens: int


class CohereMeta(msgspec.Struct, kw_only=True):
    """Cohere's remarks on an answer."""

    api_version: ApiVersion
    billed_units: BilledUnits
    tokens: TokenCount


class RerankResponse(msgspec.Struct, kw_only=True):
    """Documents by relevance, the best first; fit for clients of Cohere's v1 and of Jina."""

    id: str
    object: Literal["list"] = "list"
    model: str
    usage: RerankUsage
    results: list[RerankResult]
    meta: CohereMeta


class CohereRerankResponse(msgspec.Struct, kw_only=True):
    """Documents by relevance, the best first, as Cohere's v2 answers."""

    id: str
    results: list[RerankResult]
    meta: CohereMeta

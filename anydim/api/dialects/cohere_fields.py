"""The fields of Cohere's embedding routes. It knows names, types and documentation.

Source: docs.cohere.com/reference/embed (v2) and /v1/reference/embed.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from anydim.api.dialects.extensions import Dimension, Instruction, PromptName
from anydim.api.dialects.rerank_fields import CohereMeta

EmbeddingType = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]


class CohereEmbedRequest(msgspec.Struct, kw_only=True):
    """Texts to embed, in Cohere's words. Either `texts` or `inputs` is needed."""

    texts: Annotated[list[str] | None, Meta(description="The texts.", examples=[["first text", "second text"]])] = None
    inputs: Annotated[
        list[dict[str, Any]] | None, Meta(description="Objects whose `content` is a list of text parts.")
    ] = None
    images: Annotated[list[str] | None, Meta(description="Refused: the models read text.")] = None
    model: Annotated[str | None, Meta(description="A name of a served model; absent picks the default.")] = None
    input_type: Annotated[
        str | None,
        Meta(description="search_query (or query) and search_document (or document) choose the model's prompts."),
    ] = None
    output_dim: Dimension = None
    instruction: Instruction = None
    prompt_name: PromptName = None
    embedding_types: Annotated[list[EmbeddingType] | None, Meta(description="Any of them at once.")] = None
    output_dimension: Annotated[int | None, Meta(description="Components of each vector.")] = None
    max_tokens: Annotated[int | None, Meta(description="Accepted and not used.")] = None
    truncate: Annotated[
        Literal["NONE", "START", "END", "none", "start", "end"] | None,
        Meta(description="Where long texts are cut: END, unless NONE refuses."),
    ] = None
    priority: Annotated[int | None, Meta(description="0 is normal, more is low.")] = None


class CohereEmbeddings(msgspec.Struct, kw_only=True):
    """Vectors by type."""

    float: list[Any] | UnsetType = UNSET
    int8: list[Any] | UnsetType = UNSET
    uint8: list[Any] | UnsetType = UNSET
    binary: list[Any] | UnsetType = UNSET
    ubinary: list[Any] | UnsetType = UNSET
    base64: list[str] | UnsetType = UNSET


class CohereEmbedResponse(msgspec.Struct, kw_only=True):
    """One vector a text and type; at /v1/embed without embedding_types, `embeddings` is the list of float vectors."""

    id: str
    response_type: Literal["embeddings_floats", "embeddings_by_type"]
    embeddings: CohereEmbeddings | list[Any]
    texts: list[str]
    meta: CohereMeta

"""The fields of OpenAI's embedding and model routes, with our extensions, as structs that the schema is made from.

It knows names, types and documentation; it knows no values of any model.
Source: https://platform.openai.com/docs/api-reference/embeddings.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Texts = str | list[str | int | list[int] | dict[str, Any]]


def _dimension(description: str) -> Meta:
    """A field that intake checks, whatever its type, so that its own message is given."""
    kinds = [{"type": "integer"}, {"type": "array", "items": {"type": "integer"}}, {"type": "null"}]
    return Meta(description=description, extra_json_schema={"anyOf": kinds, "examples": [256]})


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    """Texts to embed. Every field but `input` may be left out or null."""

    input: Annotated[
        Texts,
        Meta(
            description="A text, a list of texts, a list of token ids, or a list of lists of token ids.",
            examples=["The capital of China is Beijing.", ["first text", "second text"]],
        ),
    ]
    model: Annotated[str | None, Meta(description="A name of the served model; absent picks the default.")] = None
    encoding_format: Annotated[
        Literal["float", "base64"] | None,
        Meta(description="JSON numbers (the default), or base64 of the little-endian bytes of `output_dtype`."),
    ] = None
    dimensions: Annotated[Any, _dimension("Components of each vector: one number, or one an input.")] = None
    output_dim: Annotated[Any, _dimension("Means the same as `dimensions`.")] = None
    output_dtype: Annotated[
        Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"] | None,
        Meta(description="How components are written; float32 by default."),
    ] = None
    instruction: Annotated[
        str | None,
        Meta(
            description="The task, for models trained with instructions; implies the query form.",
            examples=["Given a web search query, retrieve relevant passages that answer the query"],
        ),
    ] = None
    prompt_name: Annotated[str | None, Meta(description="A key of the model's prompts.")] = None
    input_type: Annotated[
        Literal["query", "document"] | None, Meta(description="What the texts are for; chooses among the prompts.")
    ] = None
    truncate: Annotated[
        bool | Literal["end", "start", "none"] | None,
        Meta(description="Where a text that is too long is cut; none (the default) refuses it. true means end."),
    ] = None
    normalize: Annotated[bool | None, Meta(description="Whether vectors have length one; true by default.")] = None
    priority: Annotated[
        Literal["high", "normal", "low"] | None, Meta(description="How urgent it is beside other requests; normal.")
    ] = None
    timeout: Annotated[
        float | None,
        Meta(description="Seconds after which nobody waits for the answer: it becomes a 504, and is not computed."),
    ] = None
    user: Annotated[str | None, Meta(description="Accepted and not used.")] = None
    task: Annotated[
        str | None,
        Meta(description="Jina's: retrieval.query and retrieval.passage choose the model's prompts; others none."),
    ] = None
    embedding_type: Annotated[
        str | list[str] | None, Meta(description="Jina's: float, base64, binary or ubinary; one of them.")
    ] = None
    normalized: Annotated[bool | None, Meta(description="Jina's name of `normalize`.")] = None
    late_chunking: Annotated[bool | None, Meta(description="Jina's; refused where it is true.")] = None


class EmbeddingRow(msgspec.Struct, kw_only=True):
    """One vector."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: Annotated[list[float] | str, Meta(description="Numbers, or base64 where encoding_format is base64.")]
    scale: Annotated[
        float | UnsetType, Meta(description="With int8 and uint8: component = value * scale (uint8: less 128 first).")
    ] = UNSET


class Usage(msgspec.Struct, kw_only=True):
    """Tokens of all inputs, after prompt and truncation."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct, kw_only=True):
    """One vector an input, in the order of the request."""

    object: Literal["list"] = "list"
    data: list[EmbeddingRow]
    model: str
    usage: Usage


class ModelInfo(msgspec.Struct, kw_only=True):
    """A served model, and beyond OpenAI's fields what a client needs to know before it asks."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "anydim"
    root: Annotated[str, Meta(description="The model behind the name.")]
    task: Annotated[Literal["embed", "rerank", "classify"], Meta(description="What the model does.")] = "embed"
    max_tokens: Annotated[int, Meta(description="The longest input, special tokens included.")]
    width: Annotated[int | UnsetType, Meta(description="Components of the full vector.")] = UNSET
    dimensions: Annotated[str | UnsetType, Meta(description="The allowed dimensions in words.")] = UNSET
    dim_step: Annotated[int | UnsetType, Meta(description="Its multiples and the width are allowed.")] = UNSET
    default_dim: Annotated[int | UnsetType, Meta(description="The dimension of requests that name none.")] = UNSET
    labels: Annotated[list[str] | UnsetType, Meta(description="The labels of a classifier.")] = UNSET
    prompts: Annotated[list[str], Meta(description="The values of `prompt_name`.")]
    instructions: Annotated[bool, Meta(description="Whether `instruction` is understood.")]


class ModelList(msgspec.Struct, kw_only=True):
    """Every name that a model answers to in full."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]

"""The fields of vLLM's pooling routes, with our extensions. It knows names, types and documentation.

Source: docs.vllm.ai, "Pooling models" and "OpenAI-compatible server".
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from anydim.api.dialects.extensions import Extensions, Truncation
from anydim.api.dialects.openai_fields import Texts, Usage

_MODEL = Meta(description="A name of a served model; absent picks the default.")


class VllmScoreRequest(msgspec.Struct, kw_only=True):
    """Texts to score: one against one or many, or pairwise. Both sides have older and newer names."""

    text_1: Annotated[str | list[str] | None, Meta(description="A query, or one a document.")] = None
    text_2: Annotated[str | list[str] | None, Meta(description="A document, or several.")] = None
    queries: Annotated[str | list[str] | None, Meta(description="Means the same as `text_1`.")] = None
    documents: Annotated[str | list[str] | None, Meta(description="Means the same as `text_2`.")] = None
    data_1: Annotated[str | list[str] | None, Meta(description="Means the same as `text_1`.")] = None
    data_2: Annotated[str | list[str] | None, Meta(description="Means the same as `text_2`.")] = None
    model: Annotated[str | None, _MODEL] = None
    truncate_prompt_tokens: Annotated[
        int | None, Meta(description="-1 cuts documents that are too long; by default they are refused.")
    ] = None
    use_activation: Annotated[
        bool | None, Meta(description="Whether scores are put between 0 and 1; by default as the model's folder says.")
    ] = None
    instruction: Annotated[str | None, Meta(description="What makes a document relevant.")] = None
    priority: Annotated[Literal["high", "normal", "low"] | int | None, Meta(description="How urgent it is.")] = None
    timeout: Annotated[float | None, Meta(description="Seconds after which nobody waits for the answer.")] = None


class VllmScore(msgspec.Struct, kw_only=True):
    """One pair's score."""

    index: int
    object: Literal["score"] = "score"
    score: float


class VllmScoreResponse(msgspec.Struct, kw_only=True):
    """One score a pair, in the order of the request."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[VllmScore]
    usage: Usage


class VllmPoolingRequest(Extensions, kw_only=True):
    """Texts to embed, or pairs and texts to score, as vLLM names it."""

    input: Annotated[Texts, Meta(description="A text, or a list of texts.", examples=[["first text", "second text"]])]
    model: Annotated[str | None, _MODEL] = None
    encoding_format: Annotated[Literal["float", "base64"] | None, Meta(description="JSON numbers, or base64.")] = None
    dimensions: Annotated[Any, Meta(description="Components of each vector.")] = None
    task: Annotated[
        str | None,
        Meta(description="embed (the default of embedding models), token_embed, or classify (of classifiers)."),
    ] = None
    truncate_prompt_tokens: Annotated[int | None, Meta(description="-1 cuts texts that are too long.")] = None
    truncate: Annotated[Truncation, Meta(description="Where texts that are too long are cut, in our words.")] = None
    normalize: Annotated[bool | None, Meta(description="Whether vectors have length one; true by default.")] = None
    use_activation: Annotated[bool | None, Meta(description="Whether a classifier's scores are probabilities.")] = None
    priority: Annotated[Literal["high", "normal", "low"] | int | None, Meta(description="How urgent it is.")] = None
    timeout: Annotated[float | None, Meta(description="Seconds after which nobody waits for the answer.")] = None


class VllmPooled(msgspec.Struct, kw_only=True):
    """One text's values."""

    index: int
    object: Literal["pooling"] = "pooling"
    data: Annotated[
        list[float | list[float]] | str,
        Meta(description="Numbers, a list a token for token_embed; base64 of them where encoding_format is base64."),
    ]


class VllmPoolingResponse(msgspec.Struct, kw_only=True):
    """One row a text, in the order of the request."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[VllmPooled]
    usage: Usage


class VllmTokenizeRequest(msgspec.Struct, kw_only=True):
    """A text to tokenise."""

    prompt: Annotated[str, Meta(description="The text.", examples=["The capital of China is Beijing."])]
    model: Annotated[str | None, _MODEL] = None
    add_special_tokens: Annotated[bool | None, Meta(description="true by default.")] = None
    return_token_strs: Annotated[bool | None, Meta(description="Whether the tokens' texts come back too.")] = None


class VllmTokenizeResponse(msgspec.Struct, kw_only=True):
    """The tokens of a text."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class VllmDetokenizeRequest(msgspec.Struct, kw_only=True):
    """Token ids to decode."""

    tokens: Annotated[list[int], Meta(examples=[[1, 2]])]
    model: Annotated[str | None, _MODEL] = None


class VllmDetokenizeResponse(msgspec.Struct, kw_only=True):
    """The text of token ids."""

    prompt: str

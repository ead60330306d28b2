"""The fields of text-embeddings-inference's routes, with our extensions. It knows names, types and documentation.

Source: huggingface.github.io/text-embeddings-inference (its OpenAPI document).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from anydim.api.dialects.extensions import Extensions, Truncation

Direction = Literal["Left", "Right", "left", "right"]

_INPUTS = Meta(description="A text, or a list of texts.", examples=[["first text", "second text"]])
_TRUNCATE = Meta(description="Whether texts that are too long are cut, or where; refused otherwise.")
_DIRECTION = Meta(description="Right (the default) cuts the end, Left the start.")


class TeiEmbedRequest(Extensions, kw_only=True):
    """Texts to embed."""

    inputs: Annotated[str | list[str | int | list[int]], _INPUTS]
    truncate: Annotated[Truncation, _TRUNCATE] = None
    truncation_direction: Annotated[Direction | None, _DIRECTION] = None
    normalize: Annotated[
        bool | None, Meta(description="Whether vectors have length one; by default at /embed, and not at /embed_all.")
    ] = None
    dimensions: Annotated[Any, Meta(description="Components of each vector: one number, or one an input.")] = None
    parameters: Annotated[dict[str, Any] | None, Meta(description="Accepted and not used.")] = None


class TeiRerankRequest(msgspec.Struct, kw_only=True):
    """A query, and texts to order by relevance."""

    query: Annotated[str, Meta(description="The query.")]
    texts: Annotated[list[str], Meta(description="The texts.")]
    raw_scores: Annotated[bool | None, Meta(description="Whether scores are the model's own numbers.")] = None
    return_text: Annotated[bool | None, Meta(description="Whether results hold the texts.")] = None
    truncate: Annotated[bool | None, _TRUNCATE] = None
    truncation_direction: Annotated[Direction | None, _DIRECTION] = None
    instruction: Annotated[str | None, Meta(description="What makes a text relevant.")] = None


class TeiRank(msgspec.Struct, kw_only=True):
    """One text's place and score."""

    index: int
    score: float
    text: str | UnsetType = UNSET


class TeiPredictRequest(msgspec.Struct, kw_only=True):
    """A text, a pair of texts, or a list of lists of one or two texts, to classify."""

    inputs: Annotated[str | list[str | list[str]], Meta(examples=["a text", [["a text"], ["a text", "its pair"]]])]
    raw_scores: Annotated[bool | None, Meta(description="Whether scores are the model's own numbers.")] = None
    truncate: Annotated[bool | None, _TRUNCATE] = None
    truncation_direction: Annotated[Direction | None, _DIRECTION] = None
    parameters: Annotated[dict[str, Any] | None, Meta(description="Accepted and not used.")] = None


class TeiPrediction(msgspec.Struct, kw_only=True):
    """One label's score."""

    score: float
    label: str


class TeiSimilarityInput(msgspec.Struct, kw_only=True):
    """A sentence, and those to compare it with."""

    source_sentence: str
    sentences: list[str]


class TeiSimilarityParameters(msgspec.Struct, kw_only=True):
    """How sentences are read."""

    truncate: bool | None = None
    truncation_direction: Direction | None = None
    prompt_name: str | None = None


class TeiSimilarityRequest(msgspec.Struct, kw_only=True):
    """Sentences to compare."""

    inputs: TeiSimilarityInput
    parameters: TeiSimilarityParameters | None = None


class TeiTokenizeRequest(msgspec.Struct, kw_only=True):
    """Texts to tokenise."""

    inputs: Annotated[str | list[str], _INPUTS]
    add_special_tokens: bool | None = None
    prompt_name: str | None = None


class TeiToken(msgspec.Struct, kw_only=True):
    """One token."""

    id: int
    text: str
    special: bool
    start: int | None = None
    stop: int | None = None


class TeiDecodeRequest(msgspec.Struct, kw_only=True):
    """Token ids to decode: one list, or several."""

    ids: list[int | list[int]]
    skip_special_tokens: bool | None = None

"""EmbedRequest: what any entrance asks of the model, before validation. It knows no HTTP and no model."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from anydim.types import ANY_TIME, OutputDtype, Terms


class InputType(enum.StrEnum):
    """What a text is for; chooses among the model's prompts."""

    QUERY = "query"
    DOCUMENT = "document"


class Truncate(enum.StrEnum):
    """What happens to a text with more tokens than the model reads: keep its start, keep its end, or refuse it."""

    END = "end"
    START = "start"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRequest:
    """Texts (or token ids) to embed.

    Attributes:
        inputs: all strings, or all lists of token ids.
        output_dim: one dimension, one an input, or None for the default; checked by intake, whatever its type.
        dimensions: OpenAI's name for the same.
        output_dtype: how vectors are written.
        normalize: whether vectors have length one.
        instruction: free text for models that were trained with instructions.
        prompt_name: a key of the model's prompts.
        input_type: query or document.
        truncate: what happens to long texts.
        terms: on which terms the texts wait for the engine.
    """

    inputs: Sequence[str] | Sequence[Sequence[int]]
    output_dim: Any = None
    dimensions: Any = None
    output_dtype: OutputDtype = OutputDtype.FLOAT32
    normalize: bool = True
    instruction: str | None = None
    prompt_name: str | None = None
    input_type: InputType | None = None
    truncate: Truncate = Truncate.NONE
    terms: Terms = ANY_TIME

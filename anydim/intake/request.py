"""EmbedRequest: what any entrance asks of the model, before validation. It knows no HTTP and no model."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from anydim.errors import InvalidRequest
from anydim.types import ANY_TIME, OutputDtype, Terms

Kind = TypeVar("Kind", bound=enum.StrEnum)


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
        each_token: whether every token gets a vector; then the model's width is the default dimension.
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
    each_token: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRequest:
    """Pairs of query and document, or texts alone, to score.

    Attributes:
        queries: one for all documents, or one a document; None for texts alone.
        documents: the texts.
        instruction: free text for models that were trained with instructions; None for the default one.
        truncate: what happens to pairs that are too long.
        max_document_tokens: where documents are cut at the latest, or None.
        squash: whether scores are put between 0 and 1; None does as the model's folder says.
        field: the name of the documents in errors.
        terms: on which terms they wait.
    """

    queries: Sequence[str] | None
    documents: Sequence[str]
    instruction: str | None = None
    truncate: Truncate = Truncate.END
    max_document_tokens: int | None = None
    squash: bool | None = None
    field: str = "documents"
    terms: Terms = ANY_TIME

    def queries_of(self, part: slice) -> Sequence[str]:
        """The query of each document in ``part``."""
        queries = self.queries or ()
        documents = self.documents[part]
        return [queries[0]] * len(documents) if len(queries) == 1 else queries[part]

    def document_fields(self, part: slice) -> list[str]:
        """The name of each document in ``part``, for errors."""
        first = part.start or 0
        return [f"{self.field}[{place}]" for place in range(first, first + len(self.documents[part]))]


def choice(kind: type[Kind], value: Kind | str, param: str) -> Kind:
    """A value of an enumeration by its name.

    Raises:
        InvalidRequest: there is none; names ``param`` and what there is.
    """
    try:
        return kind(value)
    except ValueError:
        raise InvalidRequest(f"{param} must be one of {', '.join(kind)}, got {value!r}", param) from None

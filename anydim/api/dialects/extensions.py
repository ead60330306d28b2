"""Extensions: the fields of our own that every embedding route takes beside its dialect's, and what they ask for.

It knows names, types and documentation; it knows no dialect and no model.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

import msgspec
from msgspec import Meta

from anydim.intake.request import InputType

Truncation = bool | Literal["end", "start", "none"] | None
"""Where a text that is too long is cut, in our words or as a dialect's truth value."""


Dimension = Annotated[Any, Meta(description="Components of each vector: one number, or one an input.")]
Instruction = Annotated[
    str | None, Meta(description="The task, for models trained with instructions; implies the query form.")
]
PromptName = Annotated[str | None, Meta(description="A key of the model's prompts.")]


class Extensions(msgspec.Struct, kw_only=True):
    """Dimension and prompt, in our words."""

    output_dim: Dimension = None
    instruction: Instruction = None
    prompt_name: PromptName = None
    input_type: Annotated[
        Literal["query", "document"] | None, Meta(description="What the texts are for; chooses among the prompts.")
    ] = None


class Asked(TypedDict):
    """Those fields of an EmbedRequest."""

    output_dim: Any
    instruction: str | None
    prompt_name: str | None
    input_type: InputType | None


def asked(wanted: Extensions) -> Asked:
    """What a body's extensions ask for."""
    return {
        "output_dim": wanted.output_dim,
        "instruction": wanted.instruction,
        "prompt_name": wanted.prompt_name,
        "input_type": InputType(wanted.input_type) if wanted.input_type else None,
    }

"""Prompts: what is put before a text. It knows a model's card; it knows no tokens and no HTTP.

Source: sentence_transformers.SentenceTransformer.encode for prompt names and defaults; the Qwen3-Embedding model card
for instructions.
"""

from __future__ import annotations

from anydim.errors import InvalidRequest
from anydim.intake.request import EmbedRequest, InputType
from anydim.models.card import ModelCard


def prefix_of(request: EmbedRequest, card: ModelCard) -> str:
    """The prompt that goes before each text of a request; empty for raw text.

    Raises:
        InvalidRequest: the fields contradict each other, or name a prompt that the model does not have.
    """
    if request.instruction is not None:
        return _instruction(request, card, request.instruction)
    if request.prompt_name is not None:
        return _named(request, card, request.prompt_name)
    if request.input_type is InputType.QUERY:
        return card.prompts.get("query", "")
    if request.input_type is InputType.DOCUMENT:
        return card.prompts.get("document", card.prompts.get("passage", ""))
    return card.prompts[card.default_prompt] if card.default_prompt else ""


def _instruction(request: EmbedRequest, card: ModelCard, instruction: str) -> str:
    if request.prompt_name is not None:
        raise InvalidRequest("at most one of instruction and prompt_name may be given", "instruction")
    if request.input_type is InputType.DOCUMENT:
        raise InvalidRequest("documents take no instruction: drop instruction, or use input_type query", "instruction")
    if card.instruction_template is None:
        raise InvalidRequest(
            f"{card.name} was not trained with instructions; use input_type or prompt_name", "instruction"
        )
    return card.instruction_template.removesuffix("{text}").replace("{instruction}", instruction)


def _named(request: EmbedRequest, card: ModelCard, name: str) -> str:
    if request.input_type is not None:
        raise InvalidRequest("at most one of prompt_name and input_type may be given", "prompt_name")
    if name not in card.prompts:
        known = ", ".join(sorted(card.prompts)) or "none"
        raise InvalidRequest(f"{card.name} has no prompt named {name[:60]!r}; its prompts: {known}", "prompt_name")
    return card.prompts[name]

"""Reranking prompts of Qwen3, by name. They know text only; which tokens they become is the tokenizer's matter.

Source: the Qwen3-Reranker model card for `single`; the evaluation code of the Qwen3-Embedding repository for
`evaluation`, which puts empty lines between the fields and has another default instruction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

_SYSTEM: Final = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)

BEFORE: Final = f"<|im_start|>system\n{_SYSTEM}<|im_end|>\n<|im_start|>"
"""What stands before all that a user writes, up to the last control token before it."""

BEHIND: Final = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
"""What stands behind it, from the first control token on."""


@dataclass(frozen=True, slots=True)
class RerankPrompt:
    """One way to put instruction, query and document between ``BEFORE`` and ``BEHIND``."""

    between: str
    instruction: str

    def head(self, instruction: str, query: str) -> str:
        """What comes before the document; a space follows it."""
        fields = (f"user\n<Instruct>: {instruction}", f"<Query>: {query}", "<Document>:")
        return self.between.join(fields)


PROMPTS: Final[Mapping[str, RerankPrompt]] = MappingProxyType(
    {
        "single": RerankPrompt("\n", "Given a web search query, retrieve relevant passages that answer the query"),
        "evaluation": RerankPrompt("\n\n", "Given the user query, retrieval the relevant passages"),
    }
)

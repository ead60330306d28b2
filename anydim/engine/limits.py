"""Limits: what one of several models may take of a batch, what its tokens cost, and which texts are too long for the
device's memory. It knows numbers and Items only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from anydim.errors import TooLong
from anydim.types import Item


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLimits:
    """The limits of one of several models.

    Attributes:
        batch_tokens: most tokens of a batch; a longer text goes alone.
        raw_width: components of a raw vector, from which every form of a text is derived; 0 where none can be.
        per_token: what a token costs, in tokens of the first model.
        longest: most tokens of a text that the device's memory holds; None where it holds every text.
    """

    batch_tokens: int
    raw_width: int = 0
    per_token: float = 1.0
    longest: int | None = None

    def cost(self, tokens: int) -> int:
        """What so many tokens cost, in tokens of the first model."""
        return tokens if self.per_token == 1.0 else max(1, math.ceil(self.per_token * tokens))


def too_long(items: Sequence[Item], longest: int | None) -> TooLong | None:
    """What is wrong with the first text that the device's memory does not hold; None where it holds all of them.

    Args:
        items: the texts.
        longest: most tokens of a text, None where there is no limit.
    """
    if longest is None:
        return None
    for item in items:
        if len(item.ids) > longest:
            return TooLong(
                f"a text has {len(item.ids)} tokens, and the GPU's memory holds texts of up to {longest}; "
                "--mem-fraction-static decides how much of it may be used, --max-input-tokens where texts are cut"
            )
    return None

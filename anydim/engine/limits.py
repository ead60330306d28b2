"""Limits: what one of several models may take of a batch, and what its tokens cost. It knows numbers only."""

from __future__ import annotations

import math
from dataclasses import dataclass


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

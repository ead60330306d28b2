"""Policy: the limits of a queue, and what is short, first, or derived by them. It knows numbers and Items only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from anydim.engine.limits import ModelLimits
from anydim.types import Item, OutputDtype, Priority

_SHORT: Final = 4  # a submission is short up to this part of a slice
_LATENESS: Final = MappingProxyType({Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 5})


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The limits of a queue. With several models its tokens are those of the first; others count by what they cost.

    Attributes:
        batch_tokens: most tokens of a batch; a longer text goes alone.
        queue_tokens: most tokens that wait.
        slice_tokens: most tokens of a batch of bulk work while there is short work.
        age_limit: seconds by which size, and each step of priority, move work back.
        raw_width: components of a raw vector, from which every form of a text is derived; 0 where none can be.
        always_raw: whether every forward is asked for raw vectors.
        models: the limits of each model, where there are several.
    """

    batch_tokens: int
    queue_tokens: int
    slice_tokens: int
    age_limit: float = 2.0
    raw_width: int = 0
    always_raw: bool = False
    models: tuple[ModelLimits, ...] = ()

    def limits(self, model: int) -> ModelLimits:
        """The limits of a model by its place."""
        if self.models:
            return self.models[model]
        return ModelLimits(batch_tokens=self.batch_tokens, raw_width=self.raw_width)

    @property
    def short_tokens(self) -> int:
        """Most tokens of a submission that counts as short."""
        return self.slice_tokens // _SHORT

    def is_short(self, tokens: int, priority: Priority) -> bool:
        """Whether a submission goes with short work."""
        return tokens <= self.short_tokens and priority is not Priority.LOW

    def rank(self, arrived: float, tokens: int, priority: Priority) -> float:
        """The least goes first; what comes a few age limits later never goes before."""
        return arrived + self.age_limit * (_LATENESS[priority] + min(1.0, tokens / self.slice_tokens))

    def has_raw(self, item: Item) -> bool:
        """Whether there is a raw vector of its text; vectors a token are too many to be kept for others."""
        return bool(self.limits(item.model).raw_width) and not item.each_token

    def raw(self, item: Item) -> Item:
        """The Item whose Output gives every form of the same text."""
        return replace(item, dim=self.limits(item.model).raw_width, dtype=OutputDtype.FLOAT32, normalize=False)

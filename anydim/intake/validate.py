"""Validation of dimensions: what a request may ask for, checked before any tokenising.

It knows a model's width and the server's rules; it knows no HTTP and no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from anydim.errors import ConfigError, InvalidRequest


@dataclass(frozen=True, slots=True)
class DimensionRule:
    """Which dimensions a model serves.

    Attributes:
        width: components of the full vector; always allowed.
        step: other dimensions are multiples of it.
        default: the dimension of requests that name none.
    """

    width: int
    step: int
    default: int

    @classmethod
    def of(cls, width: int, step: int, default: str | int | None) -> DimensionRule:
        """Build the rule from the settings ``--dim-step`` and ``--default-dim``.

        Raises:
            ConfigError: the default is not an allowed dimension, or the step is not positive.
        """
        if step < 1:
            raise ConfigError(f"--dim-step must be at least 1, got {step}")
        rule = cls(width, step, width)
        if default is None:
            return cls(width, step, rule.nearest_below(1024))
        if default == "native":
            return rule
        wanted = int(default) if str(default).isdecimal() else default
        if not rule.allows(wanted):
            raise ConfigError(f"--default-dim must be native or {rule.allowed}, got {default}")
        return cls(width, step, int(wanted))

    @property
    def allowed(self) -> str:
        """The allowed dimensions in words."""
        if self.step > self.width:
            return str(self.width)
        least, most = self.step, self.width
        extra = "" if most % self.step == 0 else f", or {most}"
        return f"a multiple of {self.step} between {least} and {most - most % self.step}{extra}"

    def allows(self, dim: object) -> bool:
        """Whether a value is an allowed dimension; false for anything but an integer."""
        if not isinstance(dim, int) or isinstance(dim, bool):
            return False
        return dim == self.width or (0 < dim <= self.width and dim % self.step == 0)

    def nearest_below(self, dim: int) -> int:
        """The largest allowed dimension up to ``dim``, or the least allowed one."""
        if self.width <= dim:
            return self.width
        return max(dim - dim % self.step, min(self.step, self.width))

    def resolve(self, output_dim: Any, dimensions: Any, count: int) -> list[int]:
        """The dimension of each of ``count`` inputs.

        Args:
            output_dim: an integer, a list with one an input, or None for the default.
            dimensions: OpenAI's name for the same.
            count: how many inputs there are.

        Raises:
            InvalidRequest: a value is not allowed, a list has another length, or both are given and differ.
        """
        if output_dim is not None and dimensions is not None and output_dim != dimensions:
            raise InvalidRequest(
                f"output_dim and dimensions differ: {_shown(output_dim)} and {_shown(dimensions)}", "output_dim"
            )
        param = "dimensions" if output_dim is None else "output_dim"
        wanted = dimensions if output_dim is None else output_dim
        if not isinstance(wanted, Sequence) or isinstance(wanted, str):
            return [self._check(wanted, param)] * count
        if len(wanted) != count:
            raise InvalidRequest(f"{param} has {len(wanted)} entries for {count} inputs", param)
        return [self._check(dim, f"{param}[{index}]") for index, dim in enumerate(wanted)]

    def _check(self, dim: Any, param: str) -> int:
        if dim is None:
            return self.default
        if not self.allows(dim):
            raise InvalidRequest(f"{param} must be {self.allowed}, got {_shown(dim)}", param)
        return int(dim)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

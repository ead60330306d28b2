"""How much of a card's limits does a measured time use? Arithmetic and memory, whichever needs longer.

Not a script, and no torch: limits.py measures the limits, this knows what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from benchmarks.cases import Case
from benchmarks.shapes import Shape, Work

ITEMSIZES: Final = MappingProxyType({"float32": 4, "float16": 2, "bfloat16": 2, "fp8": 1, "int8": 1})


@dataclass(frozen=True, slots=True)
class Limits:
    """What the device reached on its own, in the same run.

    Attributes:
        bytes_per_s: of a large copy, read and written bytes together.
        flops: precision -> operations a second of a large product.
    """

    bytes_per_s: float
    flops: Mapping[str, float]

    def arithmetic_seconds(self, work: Work, linear: str, attention: str) -> float:
        """The time of ``work`` with its products in one precision and its attention in another."""
        return work.linear / self.flops[linear] + work.attention / self.flops[attention]

    def memory_seconds(self, weight_bytes: int) -> float:
        """The time to read the weights once."""
        return weight_bytes / self.bytes_per_s


def with_share(
    row: Mapping[str, Any], case: Case, shape: Shape, limits: Limits, linear: str, dtype: str
) -> dict[str, Any]:
    """A measured row with the share of the limit that it reached.

    ``share`` is the time that the card needs at its limit over the time taken. The limit of a batch is arithmetic. That
    of one text is the longer of its arithmetic and reading the weights once; ``share_of_bandwidth`` counts the reading
    alone. Cases with a shared prefix get no share: what they must compute depends on how a batch is cut.
    """
    if case.shared:
        return dict(row)
    work = shape.work(case.lengths)
    arithmetic = limits.arithmetic_seconds(work, linear, dtype)
    if not case.single:
        seconds = case.tokens / row["tokens_per_s"]
        done = (work.linear + work.attention) / seconds / 1e12
        return {**row, "tflops": done, "share": arithmetic / seconds, "limited_by": "arithmetic"}
    seconds = row["p50_ms"] / 1e3
    memory = limits.memory_seconds(shape.weight_bytes(ITEMSIZES[linear]))
    return {
        **row,
        "limit_ms": 1e3 * max(memory, arithmetic),
        "share": max(memory, arithmetic) / seconds,
        "limited_by": "memory" if memory > arithmetic else "arithmetic",
        "share_of_bandwidth": memory / seconds,
    }

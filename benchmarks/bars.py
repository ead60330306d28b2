"""The bars: what the engine is to reach on one H100 80GB, by shape, precision and case.

Not a script. It knows figures and how a measured row compares with them. The bars were set before the engine was
built, beyond what a packed prototype of 60 lines with torch.compile and FlashAttention-2 reached.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

_CASES: Final = ("2048x32", "1024x128", "512x512", "64x4096", "mixed", "1x32768", "single32", "single512")

# Thousand tokens a second, seconds for 1x32768, milliseconds for single texts.
_BARS: Final = MappingProxyType(
    {
        ("4b", "bfloat16"): (80.0, 82.0, 82.0, 72.0, 80.0, 0.95, 3.6, 7.5),
        ("4b", "fp8"): (135.0, 140.0, 135.0, 105.0, 130.0, 0.75, 2.6, 5.0),
        ("0.6b", "bfloat16"): (450.0, 500.0, 500.0, 350.0, 480.0, None, 1.0, 1.6),
    }
)
_START_SECONDS: Final = MappingProxyType({("4b", "bfloat16"): 15.0, ("4b", "fp8"): 20.0})
_MEMORY_GIB: Final = MappingProxyType({("4b", "bfloat16"): 8.9, ("4b", "fp8"): 5.2})


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure to reach, and its unit: tok/s (more is better), ms, s or GiB (less is better)."""

    value: float
    unit: str

    def verdict(self, value: float) -> str:
        """Whether a figure reaches the bar, and by how much it is better or worse."""
        gain = value / self.value - 1 if self.unit == "tok/s" else self.value / value - 1
        return f"met, {100 * gain:.1f} % better" if gain >= 0 else f"missed by {-100 * gain:.1f} %"


def bar_of(shape: str, precision: str, case: str) -> Bar | None:
    """The bar of a case, or None where none was set."""
    key = (shape, precision)
    if case == "start" and key in _START_SECONDS:
        return Bar(_START_SECONDS[key], "s")
    if case == "memory" and key in _MEMORY_GIB:
        return Bar(_MEMORY_GIB[key], "GiB")
    value = dict(zip(_CASES, _BARS.get(key, ()), strict=False)).get(case)
    if value is None:
        return None
    return Bar(value, "ms") if case.startswith("single") else Bar(value, "s") if case == "1x32768" else _rate(value)


def figure_of(row: Mapping[str, Any]) -> tuple[float, str] | None:
    """A measured row's figure, in the unit of its bar."""
    if "p50_ms" in row:
        return row["p50_ms"], "ms"
    if "tokens_per_s" in row:
        single = row.get("case") == "1x32768"
        return (32768 / row["tokens_per_s"], "s") if single else (row["tokens_per_s"], "tok/s")
    if "peak_gib" in row:
        return row["peak_gib"], "GiB"
    if "weights_s" in row:
        return row.get("device_s", 0.0) + row["weights_s"] + row["warmup_s"], "s"
    return None


def _rate(thousands: float) -> Bar:
    return Bar(1e3 * thousands, "tok/s")

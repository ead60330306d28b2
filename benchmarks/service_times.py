"""Service times: how long a batch takes on a device, as a formula fitted to what `offline` has measured.

Not a script. A batch of texts of S1, S2, ... tokens takes

    max(floor, base + per_token * (S1 + S2 + ...) + per_pair * (S1 * S1 + S2 * S2 + ...))

seconds: below some 200 tokens the weights must be read all the same, products grow with the tokens, attention with
their square. It knows result files; it knows no queue.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

_BATCH: Final = 16_384  # tokens of a batch in the cases of `offline`
_MANY: Final = re.compile(r"(\d+)x(\d+)")
_ONE: Final = re.compile(r"single(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceTimes:
    """Seconds a batch takes, queue and answer aside."""

    floor: float
    base: float
    per_token: float
    per_pair: float

    def __call__(self, lengths: Sequence[int], saved: int = 0) -> float:
        """Seconds of a batch of texts of so many tokens, less ``saved`` ones that several texts share."""
        pairs = sum(length * length for length in lengths)
        return max(self.floor, self.base + self.per_token * (sum(lengths) - saved) + self.per_pair * pairs)

    @property
    def tokens_per_second(self) -> float:
        """What full batches of short texts come to."""
        return _BATCH / self([128] * (_BATCH // 128))

    @classmethod
    def of_rates(cls, tokens_per_second: float, floor: float) -> ServiceTimes:
        """Of a device of which only its speed in bulk and its shortest time are known."""
        return cls(floor=floor, base=0.0, per_token=1 / tokens_per_second, per_pair=0.0)

    @classmethod
    def of_file(cls, file: Path) -> ServiceTimes:
        """Fitted to a result file of `offline`, least squares of relative errors."""
        rows = json.loads(file.read_text())["rows"]
        points = [point for row in rows if row.get("engine") == "anydim" and (point := _point(row))]
        shortest = min(points, key=lambda point: sum(point[0]))
        fitted = [point for point in points if point is not shortest]
        terms = np.array([[1.0, sum(lengths), sum(one * one for one in lengths)] for lengths, _ in fitted])
        seconds = np.array([taken for _, taken in fitted])
        found = np.linalg.lstsq(terms / seconds[:, None], np.ones(len(seconds)), rcond=None)[0]
        base, per_token, per_pair = (max(0.0, float(one)) for one in found)
        return cls(floor=shortest[1], base=base, per_token=per_token, per_pair=per_pair)

    def errors(self, file: Path) -> list[dict[str, Any]]:
        """Each case of a result file: measured and by the formula."""
        found = []
        for row in json.loads(file.read_text())["rows"]:
            point = _point(row) if row.get("engine") == "anydim" else None
            if point:
                lengths, seconds = point
                found.append({"case": row["case"], "measured_ms": 1e3 * seconds, "formula_ms": 1e3 * self(lengths)})
        return found


def _point(row: Mapping[str, Any]) -> tuple[list[int], float] | None:
    """The lengths of one batch of a case, and its seconds."""
    if one := _ONE.fullmatch(str(row.get("case"))):
        return [int(one[1])], row["p50_ms"] / 1e3
    many = _MANY.fullmatch(str(row.get("case")))
    if not many or "tokens_per_s" not in row:
        return None
    length = int(many[2])
    lengths = [length] * max(1, _BATCH // length)
    return lengths, sum(lengths) / row["tokens_per_s"]

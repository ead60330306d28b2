"""Engine watch: what a server's /metrics says of its engine between two moments.

Not a script. It knows names of metrics; it knows nothing of the traffic.
"""

from __future__ import annotations

import math
import urllib.request
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families

_BUSY: Final = ("anydim_engine_busy_seconds_total", "")
_TIME: Final = ("anydim_engine_uptime_seconds", "")


class EngineWatch:
    """A server's engine, from now on; time in which nobody looks is taken out by ``pause``."""

    def __init__(self, port: int) -> None:
        """Watch the server on a port of loopback."""
        self._port = port
        self._before = _samples(port)
        self._sums: dict[tuple[str, str], float] = {}

    def pause(self) -> None:
        """Count what was seen since the last look."""
        now = _samples(self._port)
        for key, value in now.items():
            self._sums[key] = self._sums.get(key, 0.0) + value - self._before.get(key, 0.0)

    def look(self) -> None:
        """Begin anew after a pause."""
        self._before = _samples(self._port)

    def row(self) -> dict[str, Any]:
        """The part of the engine's own time in which the device had work, and how long batches were under way."""
        steps = sorted((float(bound), count) for (name, bound), count in self._sums.items() if name.endswith("_bucket"))
        whole = steps[-1][1] if steps else 0
        return {
            "busy_share": self._sums[_BUSY] / max(self._sums[_TIME], 1e-9),
            "batches": int(whole),
            "batch_ms_p50_up_to": 1e3 * next((bound for bound, count in steps if count >= 0.5 * whole), math.nan),
            "batch_ms_most_up_to": 1e3 * next((bound for bound, count in steps if count >= whole), math.nan),
        }


def _samples(port: int) -> dict[tuple[str, str], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    wanted = ("anydim_engine_busy_seconds", "anydim_engine_uptime_seconds", "anydim_engine_run_seconds")
    return {
        (sample.name, sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(text)
        if family.name in wanted
        for sample in family.samples
        if sample.name.endswith(("_bucket", "_seconds_total", "uptime_seconds"))
    }

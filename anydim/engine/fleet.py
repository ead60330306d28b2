"""Fleet: the runners of several models as one. A batch is of one model, which its Items name.

It knows runners; it knows no queue, no device and no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from anydim.engine.loop import Runs
from anydim.engine.metrics import Cause
from anydim.types import Batch, Output


class Fleet:
    """Several runners on one device."""

    def __init__(self, runners: Sequence[Runs]) -> None:
        """Hold the runner of each model, in the order of the models."""
        self._runners = tuple(runners)

    def start(self, batch: Batch) -> tuple[Runs, Any]:
        """See Runs."""
        runner = self._of(batch)
        return runner, runner.start(batch)

    def finish(self, flight: tuple[Runs, Any]) -> list[Output]:
        """See Runs."""
        runner, own = flight
        return runner.finish(own)

    def rescue(self, batch: Batch) -> list[Output]:
        """See Runs."""
        return self._of(batch).rescue(batch)

    def is_fatal(self, error: Exception) -> bool:
        """See Runs; all models share the device."""
        return self._runners[0].is_fatal(error)

    def cause(self, error: Exception) -> Cause:
        """See Runs."""
        return self._runners[0].cause(error)

    def _of(self, batch: Batch) -> Runs:
        return self._runners[batch.items[0].model]

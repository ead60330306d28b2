"""Resident: one model and its engine in this process, opened, asked and closed. What Embedder and Reranker share.

An entrance: it composes settings, the registry and the engine, and draws a bar for who waits. It knows neither requests
nor vectors nor scores.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

from anydim.config import ModelSettings, load_settings
from anydim.engine.feed import feed
from anydim.engine.load import load_engine
from anydim.errors import ComputeFailed
from anydim.models.card import ModelCard
from anydim.models.registry import find_model
from anydim.progress import progress_bar
from anydim.types import Item, Output

CHUNK: Final = 256
"""Inputs tokenised at a time, so that the engine starts while the rest are being read."""

_BAR_FROM: Final = 1000  # inputs from which a progress bar is worth drawing

IntakeT = TypeVar("IntakeT")


class Resident(Generic[IntakeT]):
    """A loaded model. Use it as a context manager, or call ``close``.

    Attributes:
        settings: the model's settings.
        card: what its folder says.
        intake: what turns requests into Items.
        started: how long loading took, and where the model runs.
    """

    _work: ClassVar[str]  # of a progress bar: what is done
    _unit: ClassVar[str]  # and of what
    _field: ClassVar[str]  # the field of the inputs, in errors

    def __init__(
        self,
        flags: dict[str, Any],
        intake_of: Callable[[ModelCard, ModelSettings], IntakeT],
        show_progress: bool,
    ) -> None:
        """Load a model.

        Args:
            flags: settings by name.
            intake_of: makes the intake.
            show_progress: draw progress bars on a terminal, for loading and for long lists.

        Raises:
            ConfigError: an unknown setting, or one that does not fit.
            ModelError: the model is not there, broken, or not supported.
        """
        loaded = load_settings(flags, {})
        self.settings = loaded.model
        self._show_progress = show_progress
        engine = loaded.engine
        if "max_queue_tokens" not in flags:  # callers wait for their own inputs
            engine = replace(engine, max_queue_tokens=sys.maxsize)
        with progress_bar("Preparing the model", show_progress) as progress:
            self.card = find_model(loaded.model, progress)
        self.intake = intake_of(self.card, loaded.model)
        self._engine, self.started = load_engine(self.card, loaded.model, engine, show_progress)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Finish what is under way and free the model."""
        self._engine.close()

    def submit(self, items: Sequence[Item]) -> Future[list[Output]]:
        """Items that this model's ``intake`` made; the future gets one Output an Item, an error in place of a result
        where one input failed. Cancelling it takes back what waits.
        """
        return self._engine.submit(items)

    def _outputs(self, chunks: Iterable[Sequence[Item]], count: int, show_progress: bool | None) -> Sequence[Output]:
        """Run chunks, each while the next is tokenised; one good Output an input.

        Raises:
            ComputeFailed: an input has none.
        """
        with self._bar(count, show_progress) as progress:
            outputs = feed(self._engine, chunks, lambda done: progress(self._unit, done, count))
        for index, output in enumerate(outputs):
            if output.error is not None:
                raise ComputeFailed(f"{self._field}[{index}]: {output.error.message}")
        return outputs

    def _bar(self, count: int, wanted: bool | None) -> AbstractContextManager[Callable[[str, int, int], None]]:
        show = self._show_progress and count >= _BAR_FROM if wanted is None else wanted
        return progress_bar(self._work, show, unit=self._unit)

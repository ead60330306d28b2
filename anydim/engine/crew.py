"""Crew: the supervised engines of one server, behind one handle. Imports no torch.

It knows how many there are and what starts and stops together; supervisor.py keeps each of them running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec

from anydim.config import EngineSettings, ModelSettings
from anydim.engine import wire
from anydim.engine.handle import EngineHandle
from anydim.engine.replicas import as_one
from anydim.engine.supervisor import Supervisor
from anydim.models.card import ModelCard


class Crew:
    """As many engines as ``--dp`` says, each in a process of its own."""

    def __init__(
        self,
        card: ModelCard,
        model: ModelSettings,
        engine: EngineSettings,
        show_progress: bool = True,
        log_json: bool = False,
        others: Sequence[tuple[ModelCard, ModelSettings]] = (),
    ) -> None:
        """Prepare; nothing runs before ``start``. The arguments are those of Supervisor.

        Raises:
            ConfigError: the folder for temporary files has too long a name.
        """
        self._engines = [
            Supervisor(card, model, engine, show_progress and place == 0, log_json, others, place)
            for place in range(engine.dp)
        ]
        self.handle: EngineHandle = as_one([each.handle for each in self._engines], engine.slice_tokens)

    @property
    def sockets(self) -> list[Path]:
        """Where the engines listen, for further lines to them."""
        return [each.socket for each in self._engines]

    async def start(self) -> None:
        """Start them all and keep them running from now on."""
        for each in self._engines:
            await each.start()

    async def wait_ready(self) -> wire.Started:
        """Wait for the first start of all of them; what the first one says, and how many there are.

        Raises:
            ConfigError, ModelError, ComputeFailed: one of them cannot start, see Supervisor.
        """
        words = await asyncio.gather(*(each.wait_ready() for each in self._engines))
        count = len(words)
        return msgspec.structs.replace(
            words[0],
            device=words[0].device if count == 1 else f"{count} x {words[0].device}",
            device_seconds=max(started.device_seconds for started in words),
            weights_seconds=max(started.weights_seconds for started in words),
            warmup_seconds=max(started.warmup_seconds for started in words),
        )

    async def stop(self) -> None:
        """End them all; who still waits is answered Unavailable."""
        await asyncio.gather(*(each.stop() for each in self._engines))

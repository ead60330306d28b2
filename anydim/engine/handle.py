"""EngineHandle: what a front end needs of an engine, be it in this process or in another. Imports no torch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from anydim.engine.metrics import EngineCounts
from anydim.types import Item, Output

if TYPE_CHECKING:
    from anydim.engine.engine import Engine


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the engine lives (its process runs and is not stuck), is ready for requests, and why not.

    Of several engines one that lives or is ready is enough; the reason then tells of those that are not.
    """

    alive: bool
    ready: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """Where an engine runs, in which precision, and the most tokens of its forward."""

    device: str
    dtype: str
    batch_tokens: int


class EngineHandle(Protocol):
    """An engine that takes Items and answers Outputs."""

    async def run(self, items: Sequence[Item]) -> list[Output]:
        """One Output an Item, in order. Cancelling the call frees the Items' place in the queue.

        Raises:
            Overloaded: the queue is full.
            DeadlineExceeded: the Items' deadline has passed.
            Unavailable: the engine is starting, stopping or dead.
        """
        ...

    def health(self) -> Health:
        """The state right now."""
        ...

    def counts(self) -> EngineCounts | None:
        """What the engine has counted, at most a second old; None where no engine runs."""
        ...

    def facts(self) -> EngineFacts | None:
        """Where the engine runs; None until one has started, and where that is not known."""
        ...

    def engines(self) -> Sequence[EngineHandle]:
        """The engines behind this one, in the order of their devices; itself alone where it is one engine."""
        ...


class LocalEngine:
    """An engine in this process, for the library and for tests."""

    def __init__(self, engine: Engine) -> None:
        """Wrap a running engine; closing it stays with its owner."""
        self._engine = engine

    async def run(self, items: Sequence[Item]) -> list[Output]:
        """See EngineHandle."""
        return await asyncio.wrap_future(self._engine.submit(items))

    def health(self) -> Health:
        """See EngineHandle."""
        alive = self._engine.status().alive
        return Health(alive, alive, "" if alive else "the engine has stopped")

    def counts(self) -> EngineCounts | None:
        """See EngineHandle."""
        return self._engine.status().counts

    def facts(self) -> EngineFacts | None:
        """See EngineHandle: whoever made the engine knows more."""
        return None

    def engines(self) -> Sequence[EngineHandle]:
        """See EngineHandle."""
        return (self,)


class Passing:
    """An EngineHandle that passes everything on to another, for those that add something to its calls."""

    def __init__(self, engine: EngineHandle) -> None:
        """Pass on to ``engine``."""
        self._engine = engine

    async def run(self, items: Sequence[Item]) -> list[Output]:
        """See EngineHandle."""
        return await self._engine.run(items)

    def health(self) -> Health:
        """See EngineHandle."""
        return self._engine.health()

    def counts(self) -> EngineCounts | None:
        """See EngineHandle."""
        return self._engine.counts()

    def facts(self) -> EngineFacts | None:
        """See EngineHandle."""
        return self._engine.facts()

    def engines(self) -> Sequence[EngineHandle]:
        """See EngineHandle."""
        return self._engine.engines()

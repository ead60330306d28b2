"""EngineClient: a front end's line to the engine's process. Imports no torch.

It knows the socket and the submissions under way. When the line breaks, everyone who waits is answered at once, and
the client keeps trying to connect: the supervisor may be starting a new engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from anydim.engine import wire
from anydim.engine.handle import EngineFacts, EngineHandle, Health
from anydim.engine.metrics import EngineCounts
from anydim.errors import Unavailable
from anydim.types import Item, Output

_LOG = logging.getLogger(__name__)
_RETRY_SECONDS: Final = 0.05
_NOBODY: Final[tuple[Sequence[Item], None]] = ((), None)


class EngineClient:
    """An EngineHandle over a Unix socket."""

    def __init__(self, path: Path, stuck_after: float, costs: Sequence[float] = ()) -> None:
        """Prepare a line to the engine that listens at ``path``.

        Args:
            path: the socket.
            stuck_after: seconds without progress after which the engine counts as stuck.
            costs: what a token of each model costs, in tokens of the first one; 1 where nothing is said.
        """
        self._path = path
        self._stuck_after = stuck_after
        self._costs = costs
        self._own_tokens = 0.0
        self._others_tokens = 0.0
        self._ids = itertools.count()
        self._waiting: dict[int, tuple[Sequence[Item], asyncio.Future[list[Output]]]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._beat: wire.Beat | None = None
        self._beat_at = 0.0
        self._facts: EngineFacts | None = None
        self._reason = "the model is loading"
        self._told = ""
        self._task: asyncio.Task[None] | None = None

    def connect(self) -> None:
        """Keep a line open from now on."""
        self._task = asyncio.create_task(self._keep_connected())

    async def close(self) -> None:
        """Drop the line; who still waits is answered Unavailable."""
        self._reason = "the server is stopping"
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def explain(self, reason: str) -> None:
        """Say why there is no engine, for those who ask meanwhile."""
        self._reason = reason

    def expect_end(self, reason: str) -> None:
        """Say why the line is about to break, for those who wait."""
        self._told = reason

    async def run(self, items: Sequence[Item]) -> list[Output]:
        """See EngineHandle."""
        if not items:
            return []
        if self._writer is None:
            raise Unavailable(f"no engine at the moment: {self._reason}")
        identity = next(self._ids)
        future: asyncio.Future[list[Output]] = asyncio.get_running_loop().create_future()
        self._waiting[identity] = (items, future)
        wire.write_frame(self._writer, *wire.pack_items(identity, items))
        cost = self.cost(items)
        self._own_tokens += cost
        try:
            return await future
        except asyncio.CancelledError:
            if self._waiting.pop(identity, None) and self._writer is not None:
                wire.write_frame(self._writer, wire.Cancel(identity))
            raise
        finally:
            self._own_tokens -= cost
            del future  # an error would hold this frame, and the frame the future that holds the error

    def cost(self, items: Sequence[Item]) -> float:
        """What Items of one model cost, in tokens of the first one."""
        model = items[0].model
        return sum(len(item.ids) for item in items) * (self._costs[model] if model < len(self._costs) else 1.0)

    @property
    def load(self) -> float:
        """Tokens under way at the engine: those of this line as of now, and those of others as it last told."""
        return self._own_tokens + self._others_tokens

    @property
    def is_stuck(self) -> bool:
        """Whether the engine's process is there and makes no progress, or says nothing."""
        if self._writer is None or self._beat is None:
            return False
        silent = time.monotonic() - self._beat_at
        return silent > self._stuck_after or self._beat.busy_seconds > self._stuck_after

    def health(self) -> Health:
        """See EngineHandle."""
        if self._writer is None or self._beat is None:
            return Health(False, False, self._reason)
        if self.is_stuck:
            return Health(False, False, f"the engine has made no progress for {self._stuck_after:.0f} seconds")
        if not self._beat.alive:
            return Health(False, False, self._beat.reason or "the engine's loop has stopped")
        return Health(True, True)

    def counts(self) -> EngineCounts | None:
        """See EngineHandle."""
        return None if self._beat is None else self._beat.counts

    def facts(self) -> EngineFacts | None:
        """See EngineHandle."""
        return self._facts

    def engines(self) -> Sequence[EngineHandle]:
        """See EngineHandle."""
        return (self,)

    async def _keep_connected(self) -> None:
        while True:
            try:
                reader, self._writer = await asyncio.open_unix_connection(self._path)
            except OSError:
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            try:
                await self._read(reader)
            except (asyncio.IncompleteReadError, OSError):
                self._reason = self._told or "the engine stopped and is being restarted"
                self._told = ""
            except Exception as error:  # a line that speaks nonsense is dropped and opened anew
                _LOG.error("the line to the engine broke: %r", error)
                self._reason = "the line to the engine broke and is being opened again"
            finally:
                self._drop()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            header, payload = await wire.read_frame(reader)
            match header:
                case wire.Result(identity):
                    items, future = self._waiting.pop(identity, _NOBODY)
                    if future is not None and not future.done():  # a client may have left a moment ago
                        future.set_result(wire.unpack_outputs(header, payload, items))
                case wire.Refused(identity, kind, message, retry_after):
                    items, future = self._waiting.pop(identity, _NOBODY)
                    if future is not None and not future.done():
                        future.set_exception(wire.rebuild(kind, message, retry_after))
                case wire.Beat():
                    self._beat, self._beat_at = header, time.monotonic()
                    if header.reason:
                        self.expect_end(f"{header.reason}; it is being restarted")
                    told = header.counts.queued_tokens + header.counts.running_tokens
                    self._others_tokens = max(0.0, told - self._own_tokens)
                case wire.Hello(device, dtype, batch_tokens):
                    self._facts = EngineFacts(device, dtype, batch_tokens)

    def _drop(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = self._beat = None
        self._others_tokens = 0.0
        waiting, self._waiting = self._waiting, {}
        for _, future in waiting.values():
            if not future.done():
                future.set_exception(Unavailable(f"the request was lost ({self._reason}); it may be sent again"))

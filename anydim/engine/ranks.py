"""Ranks: the other ranks of an engine that runs by tensor parallelism, each a process of its own on its own device.

The first rank is the engine itself: it takes batches and tells the others, over a local socket each, to run the same
(control.py); the sums inside the model are between all of them (group.py). A rank ends with its engine, however that
ends, and its own end is told at once. It knows processes; it knows no tensors.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import torch
from torch import Tensor

from anydim.config import EngineSettings, ModelSettings
from anydim.engine import wire
from anydim.engine.child import environment, read_report
from anydim.engine.control import Kind, Word, hear, send
from anydim.engine.group import Group
from anydim.errors import ComputeFailed
from anydim.models.card import ModelCard
from anydim.types import Batch

_LEAST_TIMEOUT: Final = 60.0  # kernels compile at start, and not on all ranks at once
_STOP_SECONDS: Final = 5.0
_BUFFER_BYTES: Final = 1 << 20


class RankOrder(msgspec.Struct, kw_only=True):
    """What the first rank asks of another one.

    Attributes:
        models: of each model its folder, its name and how it is served.
        engine: the settings of the engine, placed on its devices.
        rank: which one it is.
        store: the file in which the ranks find each other.
        line: the file descriptor of its socket.
        log_json: whether it logs as JSON lines.
    """

    models: list[tuple[str, str, ModelSettings]]
    engine: EngineSettings
    rank: int
    store: str
    line: int
    log_json: bool = False


class Loaded(msgspec.Struct, tag="loaded"):
    """A rank's word that its part of the weights is in place."""


Report = Loaded | wire.Failed


def group_timeout(engine: EngineSettings) -> float:
    """Seconds after which a sum fails that not all ranks join."""
    return max(_LEAST_TIMEOUT, engine.watchdog_timeout)


class Ranks:
    """The ranks behind the first one."""

    def __init__(
        self,
        rows: Sequence[tuple[ModelCard, ModelSettings]],
        engine: EngineSettings,
        device: torch.device,
        scratch: Path | None = None,
        on_loss: Callable[[str], None] | None = None,
    ) -> None:
        """Start them; they load their parts of the weights meanwhile.

        Args:
            rows: the models.
            engine: the settings of the engine, placed on its devices.
            device: that of the first rank.
            scratch: a folder for what the ranks share, which someone else removes in the end; by default one is made.
            on_loss: called in a thread with the reason when a rank ends before ``serve``. Who gives it ends the process
                when a rank is lost; otherwise sums under way are given up, so that who waits for them can go on.
        """
        self._ends = on_loss is not None
        self._folder = Path(tempfile.mkdtemp(prefix="anydim-ranks-", dir=scratch))
        self._group = Group(self._folder / "store", 0, engine.tp, device, group_timeout(engine))
        self._lock = threading.Lock()
        self._closing = False
        self.reason = ""
        """Why the ranks cannot go on; empty while they can."""
        self._on_loss = on_loss or self._wait
        models = [(str(card.folder), card.name, model) for card, model in rows]
        orders = [
            RankOrder(models=models, engine=engine, rank=rank, store=str(self._folder / "store"), line=-1)
            for rank in range(1, engine.tp)
        ]
        self._processes = [_Rank(order, group_timeout(engine), self._lose) for order in orders]

    def join(self) -> None:
        """Wait until all of them have loaded, and open the process group.

        Raises:
            ConfigError, ModelError, ComputeFailed: one of them could not.
        """
        for each in self._processes:
            each.loaded.result()
        self.tell(Word(Kind.JOIN))
        self._group.join()

    def total(self, tensor: Tensor) -> None:
        """Replace a tensor by the sum over all ranks, in place."""
        self._group.total(tensor)

    def serve(self, on_loss: Callable[[str], None]) -> None:
        """Whom to tell from now on that a rank has ended; at once where one has."""
        with self._lock:
            self._on_loss, reason = on_loss, self.reason
        if reason:
            on_loss(reason)

    def tell(self, word: Word) -> None:
        """Say a word to each of them.

        Raises:
            OSError: one of them is gone.
        """
        for each in self._processes:
            send(each.line, word)

    def agree(self, good: bool) -> bool:
        """Whether what was told last went well on all ranks, ``good`` being this one's word; the others answer it.

        Raises:
            OSError, EOFError: one of them is gone.
        """
        answers = [hear(each.line) for each in self._processes]  # all of them, so that none is taken for a later one
        return good and all(answers)

    def of(self, model: int) -> Others:
        """The other ranks, as the runner of one model speaks to them."""
        return Others(self, model)

    def close(self) -> None:
        """Let them end, and wait for it."""
        with self._lock:
            closing, self._closing = self._closing, True
        if closing:
            return
        if not self.reason:
            with suppress(OSError):
                self.tell(Word(Kind.END))
            leaving = threading.Thread(target=self._group.leave, daemon=True)  # nothing shall wait for it without end
            leaving.start()
            leaving.join(_STOP_SECONDS)
        for each in self._processes:
            each.end()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _lose(self, reason: str) -> None:
        with self._lock:
            if self._closing or self.reason:
                return
            self.reason, told = reason, self._on_loss
        told(reason)
        if not self._ends:
            self._group.abort()

    def _wait(self, reason: str) -> None:
        """Nobody is told: the start that is under way fails by itself."""


class Others:
    """The other ranks, as the runner of one model speaks to them."""

    def __init__(self, ranks: Ranks, model: int) -> None:
        """Speak of the model at one place."""
        self._ranks = ranks
        self._model = model

    def tell(self, kind: Kind, batch: Batch | None = None, number: int = 0) -> None:
        """Let them do the same as this rank is about to do."""
        self._ranks.tell(Word(kind, self._model, number, batch))

    def agree(self, good: bool) -> bool:
        """See Ranks."""
        return self._ranks.agree(good)


class _Rank:
    """One process and the line to it."""

    def __init__(self, order: RankOrder, timeout: float, lost: Callable[[str], None]) -> None:
        self.line, theirs = socket.socketpair()
        self.line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        self.line.settimeout(timeout)
        self.loaded: Future[None] = Future()
        self._rank = order.rank
        self._lost = lost
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "anydim.engine.follower"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                env=environment(),
            )
            assert self._process.stdin is not None, "it is a pipe"
            order = msgspec.structs.replace(order, line=theirs.fileno())
            self._process.stdin.write(msgspec.json.encode(order) + b"\n")
            self._process.stdin.flush()
        threading.Thread(target=self._listen, name=f"anydim-rank-{order.rank}", daemon=True).start()

    def end(self) -> None:
        """Its input ends, which is its word to go."""
        assert self._process.stdin is not None, "it is a pipe"
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.line.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None, "it is a pipe"
        failure, decoder = None, msgspec.json.Decoder(Report)
        for line in self._process.stdout:
            report = read_report(line, decoder)
            if isinstance(report, wire.Failed):
                failure = wire.rebuild(report.kind, report.message)
            elif report is not None:
                self.loaded.set_result(None)
        status = self._process.wait()
        reason = f"tensor-parallel rank {self._rank} ended {_how(status)}"
        with suppress(InvalidStateError):
            self.loaded.set_exception(failure or ComputeFailed(reason))
        self._lost(reason if failure is None else f"tensor-parallel rank {self._rank}: {failure.message}")


def _how(status: int) -> str:
    return f"with status {status}" if status >= 0 else f"by signal {signal.Signals(-status).name}"

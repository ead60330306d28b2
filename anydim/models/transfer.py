"""Transfer: byte ranges of files into tensors on a device, as fast as disk or page cache and the bus allow.

Several lanes read at once, each straight into the tensor where that lies in host memory, else into one of two pinned
buffers, so that a lane reads the next chunk while the device copies the last. Nothing is mapped and no second copy of
the weights exists: the buffers together are ``LANES`` x 2 x 16 MiB. It knows files and tensors; it knows no formats.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from queue import SimpleQueue
from typing import Final, Protocol

import torch
from torch import Tensor

from anydim.errors import ModelError

LANES: Final = 4
_CHUNK_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """Bytes of a file, and the tensor that they fill.

    Attributes:
        path: the file.
        start: the first byte.
        stored: the precision of the values there.
        into: contiguous, of any device and precision; its number of values is that of the piece.
        run: where the bytes do not follow one another: values that do; 0 where all of them do.
        stride: bytes from the start of a run to the next one's.
    """

    path: Path
    start: int
    stored: torch.dtype
    into: Tensor
    run: int = 0
    stride: int = 0


def transfer(pieces: Iterable[Piece], device: torch.device, arrived: Callable[[int], None]) -> None:
    """Fill tensors on a device from files.

    Args:
        pieces: what goes where.
        device: where all of their tensors lie.
        arrived: called in this thread with the bytes of the tensors that were filled since the last call.

    Raises:
        ModelError: a file is gone or shorter than its pieces say.
    """
    chunks = _Chunks(pieces)
    arrivals: SimpleQueue[int | None] = SimpleQueue()
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # the lanes' streams do not wait for what was queued on ours
    with ThreadPoolExecutor(LANES, "anydim-read") as pool:
        try:
            lanes = [pool.submit(_run_lane, device, chunks, arrivals) for _ in range(LANES)]
            _wait(lanes, arrivals, arrived)
        finally:
            chunks.stop()  # after an error or Ctrl-C the other lanes end with the chunk at hand


def _wait(lanes: Sequence[Future[None]], arrivals: SimpleQueue[int | None], arrived: Callable[[int], None]) -> None:
    """Report until every lane has said its last word; the first error stops it."""
    for _ in lanes:
        while (count := arrivals.get()) is not None:
            arrived(count)
        for lane in lanes:
            if lane.done():
                lane.result()
    for lane in lanes:
        lane.result()


def _run_lane(device: torch.device, chunks: _Chunks, arrivals: SimpleQueue[int | None]) -> None:
    try:
        with _Files() as files, torch.no_grad():
            if device.type == "cuda":
                torch.cuda.set_device(device)
            lane = _PinnedLane(device) if device.type == "cuda" else _HostLane()
            for chunk in chunks:
                lane.fill(chunk, files)
                arrivals.put(chunk.into.nbytes)
            lane.finish()
    except BaseException:
        chunks.stop()
        raise
    finally:
        arrivals.put(None)


class _Chunks:
    """Pieces cut into chunks; many threads may draw from it."""

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._chunks = _cut(pieces)
        self._lock = threading.Lock()
        self._stopped = False

    def __iter__(self) -> Iterator[Piece]:
        while True:
            with self._lock:
                chunk = None if self._stopped else next(self._chunks, None)
            if chunk is None:
                return
            yield chunk

    def stop(self) -> None:
        """No chunk comes any more."""
        self._stopped = True


def _cut(pieces: Iterable[Piece]) -> Iterator[Piece]:
    for piece in pieces:
        size = piece.stored.itemsize
        values = _CHUNK_BYTES // size
        step = values * size
        if piece.run:
            runs = max(1, values // piece.run)
            values, step = runs * piece.run, runs * piece.stride
        for place, into in enumerate(torch.split(piece.into.view(-1), values)):
            yield replace(piece, start=piece.start + place * step, into=into)


class _Files:
    """One lane's open files."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._open: dict[Path, FileIO] = {}

    def __enter__(self) -> _Files:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def read(self, chunk: Piece, into: Tensor) -> None:
        """Read a chunk's bytes into a tensor of bytes in host memory."""
        view = memoryview(into.numpy())  # type: ignore[arg-type]  # arrays are buffers
        try:
            if chunk.path not in self._open:
                self._open[chunk.path] = self._stack.enter_context(FileIO(chunk.path))
            run = chunk.run * chunk.stored.itemsize or max(1, len(view))
            for place, begin in enumerate(range(0, len(view), run)):
                _fill(self._open[chunk.path], chunk.start + place * chunk.stride, view[begin : begin + run])
        except OSError as error:
            raise ModelError(f"{chunk.path} cannot be read: {error.strerror}") from error
        except EOFError:
            raise ModelError(f"{chunk.path} is damaged (it ends too early): was the download cut off?") from None


def _fill(file: FileIO, start: int, view: memoryview) -> None:
    file.seek(start)
    while view:
        count = file.readinto(view)
        if not count:
            raise EOFError
        view = view[count:]


class _Lane(Protocol):
    def fill(self, chunk: Piece, files: _Files) -> None: ...

    def finish(self) -> None: ...


class _HostLane:
    """Reads into tensors in host memory, and through one buffer where precision or device differ."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None

    def fill(self, chunk: Piece, files: _Files) -> None:
        if chunk.into.device.type == "cpu" and chunk.into.dtype == chunk.stored:
            files.read(chunk, chunk.into.view(torch.uint8))
            return
        if self._buffer is None:
            self._buffer = torch.empty(_CHUNK_BYTES, dtype=torch.uint8)
        stored = self._buffer[: chunk.into.numel() * chunk.stored.itemsize]
        files.read(chunk, stored)
        chunk.into.copy_(stored.view(chunk.stored))

    def finish(self) -> None:
        """Nothing is under way."""


class _PinnedLane:
    """Reads into pinned memory and lets the device fetch it from there, on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._buffers = [
            (torch.empty(_CHUNK_BYTES, dtype=torch.uint8, pin_memory=True), torch.cuda.Event())  # type: ignore[no-untyped-call]
            for _ in range(2)
        ]
        self._turn = 0

    def fill(self, chunk: Piece, files: _Files) -> None:
        buffer, fetched = self._buffers[self._turn]
        self._turn = 1 - self._turn
        fetched.synchronize()
        stored = buffer[: chunk.into.numel() * chunk.stored.itemsize]
        files.read(chunk, stored)
        with torch.cuda.stream(self._stream):
            there = stored.view(chunk.stored)
            if chunk.stored != chunk.into.dtype:  # the device converts faster
                there = there.to(self._device, non_blocking=True)
            chunk.into.copy_(there, non_blocking=True)
            fetched.record(self._stream)

    def finish(self) -> None:
        """Wait for what is under way."""
        self._stream.synchronize()

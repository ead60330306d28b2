"""Control: what the first rank of an engine tells the others, as fixed numbers and raw arrays on a local socket.

A word is a head of eight int32 and, where there is a batch, its arrays one after another. Nothing is pickled. It knows
batches and sockets; it knows no models and no devices.

Legend: B texts, C = B + 1 boundaries, T tokens, P shared prefixes.
"""

from __future__ import annotations

import enum
import socket
import struct
from dataclasses import dataclass
from typing import Final

import numpy as np

from anydim.types import Batch, Int32Array, Item, Prefixes

_HEAD: Final = struct.Struct("<8i")
_NOTHING: Final = np.empty(0, np.int32)
_NOTHING.flags.writeable = False


class Kind(enum.IntEnum):
    """What the other ranks shall do."""

    JOIN = enum.auto()  # open the process group
    RUN = enum.auto()  # a forward
    RESCUE = enum.auto()  # a forward with weights upcast to float32
    REPLAY = enum.auto()  # a forward by its CUDA graph
    CAPTURE = enum.auto()  # capture the CUDA graph of ``number`` tokens, and answer whether that went well
    DROP = enum.auto()  # let go of all CUDA graphs
    MULTIPLY = enum.auto()  # the products of batches of up to ``number`` tokens
    END = enum.auto()


@dataclass(frozen=True, slots=True)
class Word:
    """One thing to do.

    Attributes:
        kind: what.
        model: the place of the model among the served ones.
        number: the tokens of a graph, or most tokens of a batch.
        batch: what is run; of its Items only their number crosses, and whether they want every token's state, since
            heads are the first rank's business.
    """

    kind: Kind
    model: int = 0
    number: int = 0
    batch: Batch | None = None


def send(line: socket.socket, word: Word) -> None:
    """Say a word.

    Raises:
        OSError: the other side is gone, or has not listened for as long as the line's timeout.
    """
    arrays = [] if word.batch is None else _arrays(word.batch)
    prefixes = 0 if word.batch is None or word.batch.prefixes is None else len(word.batch.prefixes.lengths_P)
    texts, tokens = (0, 0) if word.batch is None else (len(word.batch.items), word.batch.tokens)
    each_token = word.batch is not None and word.batch.each_token
    head = _HEAD.pack(word.kind, word.model, word.number, word.batch is not None, each_token, texts, tokens, prefixes)
    line.sendall(b"".join([head, *(np.ascontiguousarray(array, "<i4").tobytes() for array in arrays)]))


def answer(line: socket.socket, good: bool) -> None:
    """Say to the first rank whether what it told went well.

    Raises:
        OSError: it is gone.
    """
    line.sendall(bytes([good]))


def hear(line: socket.socket) -> bool:
    """Wait for another rank's answer.

    Raises:
        OSError: the other side has not answered for as long as the line's timeout.
        EOFError: it is gone.
    """
    return bool(_read(line, 1)[0])


def receive(line: socket.socket) -> Word:
    """Wait for the next word.

    Raises:
        EOFError: the other side is gone.
    """
    kind, model, number, has_batch, each_token, *sizes = _HEAD.unpack(_read(line, _HEAD.size))
    batch = _read_batch(line, Item(_NOTHING, 1, each_token=bool(each_token)), *sizes) if has_batch else None
    return Word(Kind(kind), model, number, batch)


def _arrays(batch: Batch) -> list[Int32Array]:
    arrays = [batch.cu_seqlens_C, batch.ids_T, batch.positions_T]
    if batch.prefixes is not None:
        arrays += [batch.prefixes.lengths_P, batch.prefixes.prefix_B]
    return arrays


def _read_batch(line: socket.socket, item: Item, texts: int, tokens: int, prefixes: int) -> Batch:
    sizes = [texts + 1, tokens, tokens, *([prefixes, texts] if prefixes else [])]
    numbers = np.frombuffer(_read(line, 4 * sum(sizes)), "<i4").astype(np.int32, copy=False)
    parts = np.split(numbers, np.cumsum(sizes)[:-1])
    return Batch(
        items=[item] * texts,
        order_B=np.arange(texts, dtype=np.int32),
        cu_seqlens_C=parts[0],
        ids_T=parts[1],
        positions_T=parts[2],
        dims_B=np.ones(texts, np.int32),
        prefixes=Prefixes(parts[3], parts[4]) if prefixes else None,
    )


def _read(line: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = line.recv_into(view)
        if not count:
            raise EOFError("the other rank is gone")
        view = view[count:]
    return data

"""Wire: Items and Outputs between a front end and the engine's process, as raw arrays behind a small header.

A frame is two little-endian lengths (header u32, payload u64), a msgpack header, and the payload. It knows bytes; it
knows no sockets' owners, no queue and no models. Nothing is pickled. Imports no torch.

Legend: n Items in a submission.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Iterator, Sequence
from types import MappingProxyType
from typing import Final, Literal

import msgspec
import numpy as np

from anydim import errors
from anydim.engine.metrics import EngineCounts
from anydim.errors import AnydimError, Overloaded
from anydim.types import Item, Output, OutputDtype, Priority, Terms

_LENGTHS: Final = struct.Struct("<IQ")
_MOST_HEADER: Final = 64 << 20
_MOST_PAYLOAD: Final = 64 << 30
_EACH_TOKEN: Final = 2  # the flag beside that of normalize


class Submit(msgspec.Struct, tag=True, array_like=True):
    """Front end to engine. Payload: int32 lengths (n), int32 dims (n), uint8 dtypes (n), uint8 flags (n), int32 ids.

    ``terms`` holds the terms of Items that follow one another: how many, priority, deadline, name of the key. All Items
    of a submission are for one ``model`` and of one ``group``.
    """

    id: int
    count: int
    terms: list[tuple[int, Priority, float | None, str]]
    model: int = 0
    group: int = 0


class Cancel(msgspec.Struct, tag=True, array_like=True):
    """Front end to engine: nobody waits for this submission any more."""

    id: int


class Result(msgspec.Struct, tag=True, array_like=True):
    """Engine to front end. Payload: float32 scales (n), then the values of each Item without error, one after another.

    ``failed`` names the Items with an error: place, kind and message.
    """

    id: int
    failed: list[tuple[int, str, str]]


class Refused(msgspec.Struct, tag=True, array_like=True):
    """Engine to front end: the whole submission was refused."""

    id: int
    kind: str
    message: str
    retry_after: float


class Beat(msgspec.Struct, tag=True, array_like=True):
    """Engine to front end, several times a second: what the loop is doing; the last one says why it has stopped."""

    alive: bool
    busy_seconds: float
    counts: EngineCounts
    reason: str = ""


class Hello(msgspec.Struct, tag=True, array_like=True):
    """Engine to front end, first of all: where it runs, in which precision, and the most tokens of a forward."""

    device: str
    dtype: str
    batch_tokens: int


Header = Submit | Cancel | Result | Refused | Beat | Hello

_DECODER: Final = msgspec.msgpack.Decoder(Header)
_CLASSES: Final = MappingProxyType(
    {kind.kind: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AnydimError)}
)


class Started(msgspec.Struct, tag="started"):
    """The engine process's word that it serves.

    On what and in which precision; how long the device's own start, loading and warm-up took, and of the last what
    compiles kernels and what captures graphs; the largest batch, and in bytes what the weights and such a batch take of
    how much (0 where that was not measured); the longest text that the memory holds, None where it holds every one.
    """

    device: str
    dtype: str
    weights_seconds: float
    warmup_seconds: float
    device_seconds: float = 0.0
    kernels_seconds: float = 0.0
    graphs_seconds: float = 0.0
    batch_tokens: int = 0
    weights_bytes: int = 0
    workspace_bytes: int = 0
    allowed_bytes: int = 0
    longest: int | None = None


class Failed(msgspec.Struct, tag="failed"):
    """The engine process's word that it could not start."""

    kind: Literal["config", "model", "missing_extra", "failed"]
    message: str


Report = Started | Failed


async def read_frame(reader: asyncio.StreamReader) -> tuple[Header, memoryview]:
    """The next frame.

    Raises:
        asyncio.IncompleteReadError: the other side is gone.
        msgspec.DecodeError: the bytes are no frame.
    """
    header_size, payload_size = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
    if header_size > _MOST_HEADER or payload_size > _MOST_PAYLOAD:
        raise msgspec.DecodeError("a frame of impossible size")
    header = _DECODER.decode(await reader.readexactly(header_size))
    return header, memoryview(await reader.readexactly(payload_size))


def write_frame(writer: asyncio.StreamWriter, header: Header, payload: Sequence[bytes | memoryview] = ()) -> None:
    """Queue a frame for sending."""
    encoded = msgspec.msgpack.encode(header)
    size = sum(memoryview(part).nbytes for part in payload)
    writer.writelines([_LENGTHS.pack(len(encoded), size), encoded, *payload])


def pack_items(identity: int, items: Sequence[Item]) -> tuple[Submit, list[bytes]]:
    """Header and payload of a Submit."""
    terms = []
    for _, run in itertools.groupby(items, key=lambda item: id(item.terms)):
        alike = list(run)
        shared = alike[0].terms
        terms.append((len(alike), shared.priority, shared.deadline, shared.key))
    return Submit(identity, len(items), terms, items[0].model, items[0].group), [
        np.array([len(item.ids) for item in items], dtype="<i4").tobytes(),
        np.array([item.dim for item in items], dtype="<i4").tobytes(),
        bytes([item.dtype.code for item in items]),
        bytes([item.normalize + _EACH_TOKEN * item.each_token for item in items]),
        np.concatenate([item.ids for item in items]).astype("<i4", copy=False).tobytes(),
    ]


def unpack_items(submit: Submit, payload: memoryview) -> list[Item]:
    """The Items of a Submit; their ids are views of the payload."""
    count = submit.count
    lengths = np.frombuffer(payload, "<i4", count)
    dims = np.frombuffer(payload, "<i4", count, 4 * count).tolist()
    dtypes = bytes(payload[8 * count : 9 * count])
    flags = bytes(payload[9 * count : 10 * count])
    ids = np.frombuffer(bytes(payload[10 * count :]), "<i4")
    parts = np.split(ids, np.cumsum(lengths)[:-1])
    return [
        Item(
            ids_T,
            dim,
            OutputDtype.from_code(code),
            bool(flag & 1),
            terms,
            submit.model,
            flag >= _EACH_TOKEN,
            submit.group,
        )
        for ids_T, dim, code, flag, terms in zip(parts, dims, dtypes, flags, _unpack_terms(submit), strict=True)
    ]


def _unpack_terms(submit: Submit) -> Iterator[Terms]:
    """The terms of each Item. A deadline crosses as it is: time.monotonic is one clock for all of a machine."""
    for count, priority, deadline, key in submit.terms:
        yield from itertools.repeat(Terms(priority, deadline, key), count)


def pack_outputs(identity: int, outputs: Sequence[Output]) -> tuple[Result, list[bytes]]:
    """Header and payload of a Result."""
    failed = [
        (place, output.error.kind, output.error.message)
        for place, output in enumerate(outputs)
        if output.error is not None
    ]
    scales = np.array([np.nan if output.scale is None else output.scale for output in outputs], dtype="<f4")
    values = [output.values.tobytes() for output in outputs if output.error is None]
    return Result(identity, failed), [scales.tobytes(), *values]


def unpack_outputs(result: Result, payload: memoryview, items: Sequence[Item]) -> list[Output]:
    """Outputs of the Items of the submission; their values are views of the payload."""
    failed = {place: rebuild(kind, message) for place, kind, message in result.failed}
    scales = np.frombuffer(payload, "<f4", len(items)).tolist()
    offset = 4 * len(items)
    outputs = []
    for place, (item, scale) in enumerate(zip(items, scales, strict=True)):
        if place in failed:
            outputs.append(Output(np.empty(0, np.float32), error=failed[place]))
            continue
        stored = item.dtype.stored(item.dim) * (len(item.ids) if item.each_token else 1)
        values = np.frombuffer(payload[offset : offset + stored * item.dtype.numpy.itemsize], item.dtype.numpy)
        shaped = values.reshape(len(item.ids), -1) if item.each_token else values
        outputs.append(Output(shaped, scale if item.dtype.has_scale else None))
        offset += values.nbytes
    return outputs


def rebuild(kind: str, message: str, retry_after: float = 1.0) -> AnydimError:
    """The error behind a kind that came over the wire."""
    if kind == Overloaded.kind:
        return Overloaded(message, retry_after)
    return _CLASSES.get(kind, AnydimError)(message)

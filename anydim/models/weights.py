"""Weights: safetensors files -> a model's parameters, from disk straight to the device.

It knows file layouts and fused parameters; it does not know what any parameter is for, nor how bytes travel
(transfer.py). Only safetensors are read: nothing from outside is ever unpickled. Fused parameters are filled slice by
slice, so that no second copy of the weights exists at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from anydim.errors import ModelError
from anydim.models.card import read_json
from anydim.models.transfer import Piece, transfer

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total), both in bytes."""

_PREFIXES: Final = ("", "model.", "bert.", "roberta.")
_STORED: Final = MappingProxyType(
    {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
    }
)
_LENGTH_BYTES: Final = 8  # of the header's length at the beginning of a file


class Part(NamedTuple):
    """One checkpoint tensor, and how many rows of its parameter it fills."""

    tensor: str
    rows: int


class Stored(msgspec.Struct):
    """A tensor in the header of a file; its bytes are counted from the header's end."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class Loadable(Protocol):
    """A module that names where its parameters come from."""

    def sources(self) -> Mapping[str, Sequence[Part]]:
        """Parameter name -> checkpoint tensors, stacked along the first axis."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """As torch.nn.Module does."""
        ...


def stacked(parameter: Tensor, tensors: Sequence[str], rows: Sequence[int] | None = None) -> tuple[Part, ...]:
    """The parts of a parameter: of the given rows, or of equal ones."""
    each = rows or [parameter.shape[0] // len(tensors)] * len(tensors)
    return tuple(map(Part, tensors, each))


def load(model: Loadable, folder: Path, progress: Progress) -> None:
    """Fill a model's allocated parameters from the folder's safetensors.

    Accepts one file or a sharded index, and tensor names with or without the ``model.``, ``bert.`` or ``roberta.``
    prefix.

    Raises:
        ModelError: a file or tensor is missing, truncated or of another shape.
    """
    sources = model.sources()
    parameters = dict(model.named_parameters())
    total = sum(parameter.nbytes for parameter in parameters.values())
    done = 0

    def arrived(count: int) -> None:
        nonlocal done
        done += count
        progress("weights", done, total)

    files = _index(folder)
    with _Shards(folder) as shards:
        pieces = [
            piece
            for name, parameter in parameters.items()
            for piece in _pieces(parameter.data, sources[name], files, shards)
        ]
    pieces.sort(key=lambda piece: (piece.path, piece.start))  # disks like to be read from front to back
    transfer(pieces, next(iter(parameters.values())).device, arrived)


def fill_random(model: Loadable, seed: int = 0) -> None:
    """Random weights for benchmarks: normal with standard deviation 0.02, norms at one, biases at zero."""
    generator: torch.Generator | None = None
    for name, parameter in model.named_parameters():
        if generator is None or generator.device != parameter.device:
            generator = torch.Generator(parameter.device).manual_seed(seed)
        with torch.no_grad():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.02, generator=generator)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)


def _index(folder: Path) -> dict[str, Path]:
    """Tensor name -> file that holds it."""
    listed = folder / "model.safetensors.index.json"
    if listed.exists():
        weight_map = read_json(listed).get("weight_map")
        if not isinstance(weight_map, dict):
            raise ModelError(f"{listed} has no weight_map")
        return {str(tensor): folder / str(file) for tensor, file in weight_map.items()}
    single = folder / "model.safetensors"
    if not single.exists():
        others = sorted(path.name for pattern in ("*.bin", "*.pt", "*.gguf") for path in folder.glob(pattern))
        hint = f" (found {', '.join(others)}: only safetensors are read)" if others else ""
        raise ModelError(f"{folder} has no model.safetensors{hint}")
    with _Shards(folder) as shards:
        return dict.fromkeys(shards.open(single).keys(), single)


class _Shards:
    """Open safetensors files, each checked by the library, and their headers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._files: dict[Path, Any] = {}
        self._headers: dict[Path, tuple[int, Mapping[str, Stored]]] = {}

    def __enter__(self) -> _Shards:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def open(self, path: Path) -> Any:
        if path not in self._files:
            try:
                self._files[path] = self._stack.enter_context(safe_open(path, framework="pt"))
            except FileNotFoundError:
                raise ModelError(f"{path} is missing: was the download cut off?") from None
            except (SafetensorError, OSError) as error:
                raise ModelError(f"{path} is damaged ({error}): was the download cut off?") from error
        return self._files[path]

    def piece(self, path: Path, tensor: str, into: Tensor) -> Piece:
        """Where a tensor's bytes lie, for a target of the same shape."""
        if path not in self._headers:
            self.open(path)  # says what is wrong with the file
            self._headers[path] = _read_header(path)
        start, header = self._headers[path]
        stored = header.get(tensor)
        if stored is None:
            raise ModelError(f"{path} holds no tensor {tensor}: was the download cut off?")
        if stored.shape != list(into.shape):
            raise ModelError(
                f"{path}: {tensor} has shape {tuple(stored.shape)}, config.json asks for {tuple(into.shape)}"
            )
        if stored.dtype not in _STORED:
            raise ModelError(f"{path}: {tensor} is stored as {stored.dtype}; read are {', '.join(_STORED)}")
        return Piece(path, start + stored.data_offsets[0], _STORED[stored.dtype], into)


def _read_header(path: Path) -> tuple[int, Mapping[str, Stored]]:
    """Where the values begin, and what is stored; of a file that the library has checked.

    Source: the safetensors format, github.com/huggingface/safetensors.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        entries = msgspec.json.decode(file.read(length), type=dict[str, msgspec.Raw])
    entries.pop("__metadata__", None)
    header = {name: msgspec.json.decode(entry, type=Stored) for name, entry in entries.items()}
    return _LENGTH_BYTES + length, header


def _pieces(parameter: Tensor, parts: Sequence[Part], files: Mapping[str, Path], shards: _Shards) -> Iterator[Piece]:
    """What fills a parameter, slice by slice."""
    start = 0
    for part in parts:
        name = _find(part.tensor, files)
        yield shards.piece(files[name], name, parameter[start : start + part.rows])
        start += part.rows


def _find(tensor: str, files: Mapping[str, Path]) -> str:
    for prefix in _PREFIXES:
        if prefix + tensor in files:
            return prefix + tensor
    raise ModelError(f"the checkpoint has no tensor {tensor} (tried the prefixes {', '.join(filter(None, _PREFIXES))})")

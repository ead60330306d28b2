"""Weights: safetensors files -> a model's parameters, from disk straight to the device.

It knows file layouts and fused parameters; it does not know what any parameter is for, nor how bytes travel
(transfer.py). Only safetensors are read: nothing from outside is ever unpickled. Fused parameters are filled slice by
slice, so that no second copy of the weights exists at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from anydim.errors import ModelError
from anydim.models.files import read_json
from anydim.models.transfer import Piece, transfer

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total), both in bytes."""

Finish = Callable[[Sequence[str]], None]
"""Called with the names of parameters that are filled."""

_PREFIXES: Final = ("", "model.", "bert.", "roberta.")
_STORED: Final = MappingProxyType(
    {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
    }
)
_DEVIATION: Final = 0.02  # of random weights, as transformers initialises them
_LENGTH_BYTES: Final = 8  # of the header's length at the beginning of a file


class Cut(NamedTuple):
    """Which of ``parts`` equal slices along an axis (0 rows, 1 columns)."""

    axis: int
    place: int
    parts: int


class Part(NamedTuple):
    """One checkpoint tensor, how many rows of its parameter it fills, and which slice of it where not the whole."""

    tensor: str
    rows: int
    cut: Cut | None = None


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

    def get_submodule(self, target: str) -> nn.Module:
        """As torch.nn.Module does."""
        ...


def stacked(parameter: Tensor, tensors: Sequence[str], rows: Sequence[int] | None = None) -> tuple[Part, ...]:
    """The parts of a parameter: of the given rows, or of equal ones."""
    each = rows or [parameter.shape[0] // len(tensors)] * len(tensors)
    return tuple(map(Part, tensors, each))


def load(model: Loadable, folder: Path, progress: Progress, finish: Finish | None = None) -> None:
    """Fill a model's parameters from the folder's safetensors.

    Accepts one file or a sharded index, and tensor names with or without the ``model.``, ``bert.`` or ``roberta.``
    prefix.

    Args:
        model: its parameters are allocated, or stand on the meta device until their turn comes.
        folder: holds the files.
        progress: told after each chunk.
        finish: called with the names of a layer's parameters when they are filled; layers then come one by one.

    Raises:
        ModelError: a file or tensor is missing, truncated or of another shape.
    """
    sources, device = model.sources(), _device_of(model)
    total = sum(parameter.nbytes for _, parameter in model.named_parameters())
    done = 0

    def arrived(count: int) -> None:
        nonlocal done
        done += count
        progress("weights", done, total)

    files = _index(folder)
    with _Shards(folder) as shards:
        for names in _turns(model, finish):
            filled = {name: _with_memory(model, name, device).data for name in names}
            pieces = [piece for name in names for piece in _pieces(filled[name], sources[name], files, shards)]
            pieces.sort(key=lambda piece: (piece.path, piece.start))  # disks like to be read from front to back
            transfer(pieces, device, arrived)
            del filled, pieces
            if finish is not None:
                finish(names)


def read_rows(folder: Path, tensor: str, rows: Sequence[int]) -> list[Tensor]:
    """Single rows of one checkpoint tensor, without reading the rest of it.

    Raises:
        ModelError: the tensor is missing, or has too few rows.
    """
    files = _index(folder)
    name = _find(tensor, files)
    with _Shards(folder) as shards:
        try:
            matrix = shards.open(files[name]).get_slice(name)
        except SafetensorError as error:
            raise ModelError(f"{files[name]}: {name} cannot be read ({error}): was the download cut off?") from error
        if max(rows) >= matrix.get_shape()[0]:
            raise ModelError(f"{files[name]}: {name} has {matrix.get_shape()[0]} rows and none {max(rows)}")
        return [matrix[row] for row in rows]


def read_beginnings(folder: Path, count: int) -> Iterator[tuple[str, Stored, bytes]]:
    """The first ``count`` bytes of each tensor of a checkpoint, in the order of names: name without prefix, what is
    stored, bytes.

    Raises:
        ModelError: a file is missing or damaged.
    """
    files = _index(folder)
    with _Shards(folder) as shards:
        for tensor in sorted(files, key=_bare):
            start, header = shards.header(files[tensor])
            stored = header.get(tensor)
            if stored is None:
                raise ModelError(f"{files[tensor]} holds no tensor {tensor}: was the download cut off?")
            first, end = stored.data_offsets
            with files[tensor].open("rb") as file:
                file.seek(start + first)
                yield _bare(tensor), stored, file.read(min(count, end - first))


def fill_random(model: Loadable, seed: int = 0, finish: Finish | None = None) -> None:
    """Random weights for benchmarks: normal with standard deviation 0.02, norms at one, biases at zero.

    A slice of a matrix is the slice of what the whole would be.
    """
    device, sources = _device_of(model), model.sources()
    generator = torch.Generator(device).manual_seed(seed)
    for names in _turns(model, finish):
        for name in names:
            parameter = _with_memory(model, name, device)
            with torch.no_grad():
                if parameter.ndim > 1:
                    _draw(parameter, sources[name], generator)
                else:
                    parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            del parameter
        if finish is not None:
            finish(names)


def _draw(parameter: Tensor, parts: Sequence[Part], generator: torch.Generator) -> None:
    cut = parts[0].cut  # the parts of a parameter are cut alike
    if cut is None:
        parameter.normal_(0.0, _DEVIATION, generator=generator)
        return
    whole = parameter.new_empty(_whole_shape(parameter, cut)).normal_(0.0, _DEVIATION, generator=generator)
    rows = [part.rows * (cut.parts if cut.axis == 0 else 1) for part in parts]
    parameter.copy_(torch.cat([each.chunk(cut.parts, cut.axis)[cut.place] for each in torch.split(whole, rows)]))


def _whole_shape(into: Tensor, cut: Cut | None) -> list[int]:
    """The shape of the tensor that ``into`` is a slice of."""
    return [size * (cut.parts if cut and axis == cut.axis else 1) for axis, size in enumerate(into.shape)]


def _device_of(model: Loadable) -> torch.device:
    return next(parameter.device for _, parameter in model.named_parameters() if not parameter.is_meta)


def _turns(model: Loadable, finish: Finish | None) -> list[list[str]]:
    """Names of parameters that are filled together: all of them, or those of one layer."""
    names = [name for name, _ in model.named_parameters()]
    if finish is None:
        return [names]
    return [list(layer) for _, layer in groupby(names, key=lambda name: name.rpartition(".")[0])]


def _with_memory(model: Loadable, name: str, device: torch.device) -> nn.Parameter:
    """A parameter, allocated where it was not."""
    path, _, leaf = name.rpartition(".")
    module = model.get_submodule(path)
    parameter = getattr(module, leaf)
    assert isinstance(parameter, nn.Parameter), "the name is that of a parameter"
    if parameter.is_meta:
        parameter = nn.Parameter(torch.empty_like(parameter, device=device), requires_grad=False)
        setattr(module, leaf, parameter)
    return parameter


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

    def header(self, path: Path) -> tuple[int, Mapping[str, Stored]]:
        """Where a file's values begin, and what is stored there."""
        if path not in self._headers:
            self.open(path)  # says what is wrong with the file
            self._headers[path] = _read_header(path)
        return self._headers[path]

    def piece(self, path: Path, tensor: str, into: Tensor, cut: Cut | None) -> Piece:
        """Where the bytes of a tensor or of a slice of it lie, for a target of the same shape."""
        start, header = self.header(path)
        stored = header.get(tensor)
        if stored is None:
            raise ModelError(f"{path} holds no tensor {tensor}: was the download cut off?")
        wanted = _whole_shape(into, cut)
        if stored.shape != wanted:
            raise ModelError(f"{path}: {tensor} has shape {tuple(stored.shape)}, config.json asks for {tuple(wanted)}")
        if stored.dtype not in _STORED:
            raise ModelError(f"{path}: {tensor} is stored as {stored.dtype}; read are {', '.join(_STORED)}")
        return _sliced(Piece(path, start + stored.data_offsets[0], _STORED[stored.dtype], into), cut)


def _sliced(piece: Piece, cut: Cut | None) -> Piece:
    """A piece that begins at its tensor's first byte, moved to the slice."""
    if cut is None:
        return piece
    run = piece.into.numel() if cut.axis == 0 else piece.into.shape[1]
    size = run * piece.stored.itemsize
    start = piece.start + cut.place * size
    return (
        replace(piece, start=start) if cut.axis == 0 else replace(piece, start=start, run=run, stride=cut.parts * size)
    )


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
        yield shards.piece(files[name], name, parameter[start : start + part.rows], part.cut)
        start += part.rows


def _bare(tensor: str) -> str:
    """A checkpoint's tensor without the prefix that it may have."""
    prefix = next((prefix for prefix in _PREFIXES if prefix and tensor.startswith(prefix)), "")
    return tensor.removeprefix(prefix)


def _find(tensor: str, files: Mapping[str, Path]) -> str:
    for prefix in _PREFIXES:
        if prefix + tensor in files:
            return prefix + tensor
    raise ModelError(f"the checkpoint has no tensor {tensor} (tried the prefixes {', '.join(filter(None, _PREFIXES))})")

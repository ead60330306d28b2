"""Weights: safetensors files -> a model's parameters, mapped from disk and straight to the device.

It knows file layouts and fused parameters; it does not know what any parameter is for. Only safetensors are read:
nothing from outside is ever unpickled. Fused parameters are filled slice by slice, so that no second copy of the
weights exists at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from anydim.errors import ModelError
from anydim.models.card import read_json

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total), both in bytes."""

_REOPEN_BYTES: Final = 64 << 20  # mapped pages count as our memory until the file is closed
_PREFIXES: Final = ("", "model.", "bert.", "roberta.")


class Part(NamedTuple):
    """One checkpoint tensor, and how many rows of its parameter it fills."""

    tensor: str
    rows: int


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
    files = _index(folder)
    sources = model.sources()
    parameters = dict(model.named_parameters())
    total = sum(parameter.nbytes for parameter in parameters.values())
    done = 0
    with _Shards(folder) as shards, torch.no_grad():
        for name, parameter in parameters.items():
            _fill(parameter, sources[name], files, shards)
            done += parameter.nbytes
            progress("weights", done, total)


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
    """Open safetensors files, closed again after a while to give their mapped pages back."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._files: dict[Path, Any] = {}
        self._read = 0

    def __enter__(self) -> _Shards:
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def open(self, path: Path) -> Any:
        if path not in self._files:
            try:
                self._files[path] = self._stack.enter_context(safe_open(path, framework="pt"))
            except FileNotFoundError:
                raise ModelError(f"{path} is missing: was the download cut off?") from None
            except (SafetensorError, OSError) as error:
                raise ModelError(f"{path} is damaged ({error}): was the download cut off?") from error
        return self._files[path]

    def read(self, path: Path, tensor: str, into: Tensor) -> None:
        try:
            source = self.open(path).get_tensor(tensor)
        except SafetensorError as error:
            raise ModelError(f"{path}: {tensor} cannot be read ({error}): was the download cut off?") from error
        if source.shape != into.shape:
            raise ModelError(
                f"{path}: {tensor} has shape {tuple(source.shape)}, config.json asks for {tuple(into.shape)}"
            )
        into.copy_(source)
        self._read += source.nbytes
        if self._read > _REOPEN_BYTES:
            self._close()

    def _close(self) -> None:
        self._files.clear()
        self._stack.close()
        self._read = 0


def _fill(parameter: Tensor, parts: Sequence[Part], files: Mapping[str, Path], shards: _Shards) -> None:
    """Fill a parameter slice by slice."""
    start = 0
    for part in parts:
        name = _find(part.tensor, files)
        shards.read(files[name], name, parameter.data[start : start + part.rows])
        start += part.rows


def _find(tensor: str, files: Mapping[str, Path]) -> str:
    for prefix in _PREFIXES:
        if prefix + tensor in files:
            return prefix + tensor
    raise ModelError(f"the checkpoint has no tensor {tensor} (tried the prefixes {', '.join(filter(None, _PREFIXES))})")

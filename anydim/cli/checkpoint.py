"""Checkpoint: what the headers of a folder's safetensors files say, without reading the weights and without torch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safetensors import SafetensorError, safe_open

from anydim.errors import ModelError
from anydim.models.files import read_json

_HEADS: Final = ("lm_head.", "pooler.", "cls.", "classifier.")  # not part of an encoder; never loaded
_PREFIXES: Final = ("model.", "bert.", "roberta.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The weights of a model folder.

    Attributes:
        parameters: floating-point values that an embedding needs; heads are left out.
        products: how many of them are weights of the layers' products, which ``--quantization`` stores in 8 bits.
        product_rows: the rows of these weights, each with a scale of its own then.
        dtype: the precision of most of them, as safetensors spells it: F32, F16, BF16.
        stored_bytes: size of all its files.
        files: how many files there are.
    """

    parameters: int
    products: int
    product_rows: int
    dtype: str
    stored_bytes: int
    files: int


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read the headers of model.safetensors, or of the shards that its index names.

    Raises:
        ModelError: there is no such file, or one is missing or damaged.
    """
    paths = _files(folder)
    tensors = [tensor for path in paths for tensor in _tensors(path)]
    floats: Counter[str] = Counter()
    for _, dtype, shape in tensors:
        if "F" in dtype:
            floats[dtype] += math.prod(shape)
    products = [shape for name, _, shape in tensors if _is_of_product(name, shape)]
    if not floats:
        raise ModelError(f"{folder}: its safetensors hold no floating-point tensor")
    return Checkpoint(
        parameters=sum(floats.values()),
        products=sum(map(math.prod, products)),
        product_rows=sum(rows for rows, _ in products),
        dtype=max(floats, key=floats.__getitem__),
        stored_bytes=sum(path.stat().st_size for path in paths),
        files=len(paths),
    )


def _files(folder: Path) -> list[Path]:
    listed = folder / "model.safetensors.index.json"
    if not listed.exists():
        return [folder / "model.safetensors"]
    weight_map = read_json(listed).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ModelError(f"{listed} has no weight_map")
    return sorted({folder / str(name) for name in weight_map.values()})


def _tensors(path: Path) -> list[tuple[str, str, Sequence[int]]]:
    """Name, precision and shape of what one file holds for an encoder."""
    try:
        with safe_open(path, framework="np") as file:
            names = file.keys()  # the file itself cannot be iterated over
            slices = {name: file.get_slice(name) for name in names if not _is_of_head(name)}
            return [(name, tensor.get_dtype(), tensor.get_shape()) for name, tensor in slices.items()]
    except FileNotFoundError:
        raise ModelError(f"{path} is missing; weights are read from safetensors only") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged ({error}): was the download cut off?") from error


def _is_of_head(name: str) -> bool:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name.startswith(_HEADS)


def _is_of_product(name: str, shape: Sequence[int]) -> bool:
    return len(shape) == 2 and any(part in ("layer", "layers") for part in name.split("."))

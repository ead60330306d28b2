"""Our engine with random weights of a shape, as every benchmark of token ids starts it.

Not a script. It knows settings and engines; it knows no cases. Settings go through the same check as a server's, so
that one which this version does not have is refused instead of measured as if it were there.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from anydim.config import Settings, load_settings
from anydim.engine.engine import Engine
from anydim.types import Item
from benchmarks import shapes


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that choose shape, precision and device."""
    parser.add_argument("--shape", choices=shapes.NAMES, default="4b")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--quantization", default="none", choices=["none", "fp8", "int8"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--max-batch-tokens", type=int)
    parser.add_argument("--out", type=Path, help="a file, or a folder for a dated one")


def settings_of(options: argparse.Namespace, folder: Path, **changes: Any) -> Settings:
    """The settings of a run.

    Args:
        options: what ``add_flags`` added, parsed.
        folder: where shapes.write put the shape.
        changes: further settings by name.

    Raises:
        ConfigError: a setting that this version does not have.
    """
    flags: Mapping[str, Any] = {
        "model": str(folder),
        "load_format": "dummy",
        "dtype": options.dtype,
        "quantization": options.quantization,
        "device": options.device,
        "max_batch_tokens": options.max_batch_tokens,
        "max_queue_tokens": 1 << 40,
        **changes,
    }
    return load_settings({name: value for name, value in flags.items() if value is not None}, {})


def precision_of(options: argparse.Namespace) -> str:
    """The precision of the products: that of the quantisation, else of the weights."""
    return str(options.dtype if options.quantization == "none" else options.quantization)


def through(engine: Engine) -> Callable[[list[Item]], None]:
    """Through the engine's own queue, as every call of Embedder goes."""

    def run(items: list[Item]) -> None:
        outputs = engine.run(items)
        assert all(output.error is None for output in outputs), "a failed text is no result"

    return run


def free() -> None:
    """Give the memory of what was just let go back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

"""Child: what engines, ranks and front ends have in common for those that start them. Imports no torch.

It knows environments, lines of reports and how to tell a process something; it starts nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec

PRODUCT_CACHES: Final = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")
"""The variables that bound them."""

SHAPES_OF_A_JOB: Final = 128
"""Shapes of products whose code a job keeps: its batches are large."""

Report = TypeVar("Report")


def environment() -> dict[str, str]:
    """The environment less our own variables: the order says everything, and keys stay in the front end."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANYDIM_")}
    ours = str(Path(__file__).parents[2])  # also where the package runs from a checkout
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [ours, kept.get("PYTHONPATH")]))
    return kept


def bound_product_caches(variables: MutableMapping[str, str], shapes: int) -> None:
    """Have oneDNN and torch around it keep the code of so many shapes of products, unless something else is said.

    Each keeps that of 1024 shapes by default, 0.2 MiB a shape; new code takes 1 ms. Heard if torch comes later.
    """
    for cache in PRODUCT_CACHES:
        variables.setdefault(cache, str(shapes))


def tell(process: asyncio.subprocess.Process, words: bytes) -> None:
    """Queue words for a process's standard input; one that has ended does not hear them.

    uvloop raises RuntimeError for a pipe whose other end is gone, which would end whoever watches the process.
    """
    if process.stdin is not None and not process.stdin.is_closing():
        process.stdin.write(words)


def read_report(line: bytes, decoder: msgspec.json.Decoder[Report]) -> Report | None:
    """A line of a report; None for anything else that found its way there."""
    try:
        return decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None

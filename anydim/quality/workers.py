"""Workers: pieces of array work side by side, each on one thread, as many at once as torch may use.

A piece that fits a core's cache is done faster so than with all cores on one array, whose threads wait for each other
after every operation, the longer the more other work a machine has. It knows nothing of what is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Piece = TypeVar("Piece")
Result = TypeVar("Result")


def in_order(work: Callable[[Piece], Result], pieces: Sequence[Piece]) -> Iterator[Result]:
    """The results of all pieces in their order; after an error or an interruption no further piece is begun."""
    with one_thread_each() as workers, ThreadPoolExecutor(workers) as pool:
        yield from pool.map(work, pieces)


@contextmanager
def one_thread_each() -> Iterator[int]:
    """This thread and new ones run torch's operations on themselves alone; yields how many there may be at once."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield count
    finally:
        torch.set_num_threads(count)

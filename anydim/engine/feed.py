"""Feed: many chunks of Items through an engine in this process, a few ahead of the answers.

It knows an engine and Items; it knows no text. Chunks are made while the engine works on those before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from itertools import chain
from typing import Final, Protocol

from anydim.types import Item, Output

_AHEAD: Final = 16  # chunks that wait at the engine at a time


class Submits(Protocol):
    """What takes Items."""

    def submit(self, items: Sequence[Item]) -> Future[list[Output]]:
        """See Engine."""
        ...

    def run(self, items: Sequence[Item]) -> list[Output]:
        """See Engine."""
        ...


def feed(engine: Submits, chunks: Iterable[Sequence[Item]], done: Callable[[int], None]) -> list[Output]:
    """One Output an Item, in order.

    Args:
        engine: the engine.
        chunks: the Items; whatever they raise cancels what is queued.
        done: called now and then with the number of Outputs so far.
    """
    chunks = iter(chunks)
    first, second = next(chunks, []), next(chunks, None)
    if second is None:  # one chunk may run in this thread
        outputs = engine.run(first)
        done(len(outputs))
        return outputs
    return _several(engine, chain([first, second], chunks), done)


def _several(engine: Submits, chunks: Iterable[Sequence[Item]], done: Callable[[int], None]) -> list[Output]:
    ahead: deque[Future[list[Output]]] = deque()
    outputs: list[Output] = []
    try:
        for chunk in chunks:
            ahead.append(engine.submit(chunk))
            if len(ahead) > _AHEAD:
                outputs.extend(ahead.popleft().result())
                done(len(outputs))
        while ahead:
            outputs.extend(ahead.popleft().result())
            done(len(outputs))
    except BaseException:  # a refused text, or Ctrl-C: what was queued is not wanted any more
        for future in ahead:
            future.cancel()
        raise
    return outputs

"""Cache: raw vectors of texts that were computed before, the least recently used ones dropped first.

It belongs to one engine, so to one model and revision; token ids hold prompt and text. Off unless a size is set. Safe
for many threads. Imports no torch.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from anydim.engine.metrics import EngineCounts
from anydim.engine.work import Derive, TextKey, key_of
from anydim.types import Float32Array, Item, Output

_OVERHEAD_BYTES: Final = 400  # of an entry, beside its ids and its vector


class VectorCache:
    """Token ids -> raw vector."""

    def __init__(
        self, most_bytes: int, derive: Derive, counts: EngineCounts, has_raw: Callable[[Item], bool] = lambda _: True
    ) -> None:
        """Hold at most ``most_bytes`` bytes, of Items that ``has_raw``; give vectors out in any form by ``derive``."""
        self._has_raw = has_raw
        self._most = most_bytes
        self._derive = derive
        self._counts = counts
        self._vectors: OrderedDict[TextKey, Float32Array] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, items: Sequence[Item]) -> dict[int, Output]:
        """The Outputs of the Items whose texts it holds, by place."""
        with self._lock:
            found = {place: self._look_up(item) for place, item in enumerate(items) if self._has_raw(item)}
            raws = {place: values for place, values in found.items() if values is not None}
            self._counts.cache_hits += len(raws)
            self._counts.cache_misses += len(found) - len(raws)
        if not raws:
            return {}
        outputs = self._derive([items[place] for place in raws], [Output(values) for values in raws.values()])
        return dict(zip(raws, outputs, strict=True))

    def add(self, item: Item, raw: Output) -> None:
        """Keep a copy of a raw Output."""
        if not self._has_raw(item):
            return
        key, values = key_of(item), raw.values.astype("float32", copy=True)
        with self._lock:
            before = self._vectors.pop(key, None)
            if before is not None:
                self._counts.cache_bytes -= _size(key, before)
            self._vectors[key] = values
            self._counts.cache_bytes += _size(key, values)
            while self._counts.cache_bytes > self._most:
                self._counts.cache_bytes -= _size(*self._vectors.popitem(last=False))

    def _look_up(self, item: Item) -> Float32Array | None:
        key = key_of(item)
        if key in self._vectors:
            self._vectors.move_to_end(key)
        return self._vectors.get(key)


def _size(key: TextKey, values: Float32Array) -> int:
    return sys.getsizeof(key[0]) + values.nbytes + _OVERHEAD_BYTES

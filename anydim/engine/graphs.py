"""CUDA graphs: the whole forward of a small batch, heads included, as one replay.

It knows token buckets and static buffers; it knows no queue and no text. A bucket has a fixed number of tokens and
texts; what a batch leaves free are zero-length texts that no kernel visits. Capturing has a budget of time and memory.

Legend: B text slots, C = B + 1 boundaries, D full width, E = D + 1 columns of the captured
block, W words of a table.
"""

from __future__ import annotations

import logging
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
import torch
from torch import Tensor

from anydim.engine.forward import Forward
from anydim.engine.packing import pack
from anydim.engine.staging import Layout, Staged
from anydim.errors import ComputeFailed
from anydim.kernels import AttentionPlan
from anydim.types import Batch, Int32Array, Item

Captured = TypeVar("Captured")

_LOG = logging.getLogger(__name__)
BUCKETS: Final = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 640, 768, 1024)
_MOST_TEXTS: Final = 32
_MOST_TABLES: Final = 256
_HOSTS: Final = 3  # pinned buffers a bucket: two batches may be in flight


@dataclass(frozen=True, slots=True)
class GraphBudget:
    """What capturing may take at start.

    Attributes:
        seconds: no further graph is begun after so long.
        bytes: device memory of all graphs together.
    """

    seconds: float
    bytes: int


def capture_within(
    buckets: Sequence[int],
    capture: Callable[[int, bool], Captured],
    budget: GraphBudget,
    clock: Callable[[], float],
    taken: Callable[[], int],
) -> dict[int, Captured]:
    """Capture buckets while time and memory last.

    The largest comes first, since the others then fit into its memory; then the smallest, which gain most, and upwards.

    Args:
        buckets: tokens, in rising order.
        capture: captures one; told whether there is no other yet.
        budget: what may be spent.
        clock: seconds.
        taken: bytes that the graphs hold so far.
    """
    captured: dict[int, Captured] = {}
    began = clock()
    for place, bucket in enumerate((*buckets[-1:], *buckets[:-1])):
        if place and clock() - began > budget.seconds:
            break
        graph = capture(bucket, not captured)
        if taken() <= budget.bytes:
            captured[bucket] = graph
        del graph  # one that is too large goes
    return captured


@dataclass(slots=True)
class _Graph:
    """One captured bucket with its static buffers."""

    graph: torch.cuda.CUDAGraph
    layout: Layout
    plan: AttentionPlan
    words: Tensor
    hosts: list[tuple[Tensor, Int32Array]]
    staged: Staged
    block_BE: Tensor
    tables: dict[bytes, Int32Array] = field(default_factory=dict)
    turn: int = 0


@dataclass(slots=True)
class GraphMemory:
    """Device memory that all graphs use in turn, those of several models too, since no two batches run at once.

    Attributes:
        pool: torch's handle of it; None before the first graph.
        graphs: how many graphs have been captured into it and kept.
    """

    pool: Any = None
    graphs: int = 0

    def pool_for(self, alone: bool) -> Any:
        """Where the next graph is captured: a pool whose graphs were all given up cannot be used again.

        Args:
            alone: whether no other graph of the same model stands.
        """
        if alone and not self.graphs:
            self.pool = torch.cuda.graph_pool_handle()
        return self.pool


class GraphPool:
    """Captured graphs by token bucket."""

    def __init__(
        self,
        forward: Forward,
        device: torch.device,
        most_tokens: int,
        longest: int,
        memory: GraphMemory,
        several: bool = False,
    ) -> None:
        """Prepare; nothing is captured before ``capture`` or ``add``.

        Args:
            forward: model and task, whose block is what ``run`` returns.
            device: a CUDA device.
            most_tokens: the largest batch there will be.
            longest: tokens of the longest text that the model reads.
            memory: what the graphs share.
            several: whether several ranks capture in step. Then a thread of the process group asks events for their
                state meanwhile, which only a capture that is this thread's own allows.
        """
        self._forward = forward
        self._device = device
        self._longest = longest
        self._memory = memory
        self._mode = "thread_local" if several else "global"
        self._buckets = tuple(bucket for bucket in BUCKETS if bucket <= min(most_tokens, longest * _MOST_TEXTS))
        self._graphs: dict[int, _Graph] = {}

    def capture(
        self,
        budget: GraphBudget | None = None,
        begin: Callable[[int], None] = lambda bucket: None,
        agree: Callable[[bool], bool] = bool,
    ) -> None:
        """Capture every bucket, as far as the budget goes; the log names the others.

        Args:
            budget: what capturing may take; None for no limit.
            begin: told the tokens of each bucket before it is captured, so that other ranks capture it too.
            agree: told whether that went well here; whether it did on all ranks.

        Raises:
            Exception: whatever a capture raises here; ComputeFailed where it failed on another rank.
        """
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved(self._device)

        def capture(bucket: int, alone: bool) -> _Graph:
            begin(bucket)
            graph = None
            try:
                graph = self._capture(bucket, alone)
            finally:
                good = agree(graph is not None)
            if graph is None or not good:
                raise ComputeFailed("a CUDA graph could not be captured on another rank")
            return graph

        self._graphs = capture_within(
            self._buckets,
            capture,
            budget or GraphBudget(float("inf"), sys.maxsize),
            time.monotonic,
            lambda: self._held() - before,
        )
        self._memory.graphs += len(self._graphs)
        self._report()

    def add(self, bucket: int) -> None:
        """Capture one bucket."""
        self._graphs[bucket] = self._capture(bucket, alone=not self._graphs)
        self._memory.graphs += 1

    def drop(self) -> None:
        """Give up what was captured: another rank could not follow."""
        self._memory.graphs -= len(self._graphs)
        self._graphs.clear()

    def _held(self) -> int:
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved(self._device)

    def _report(self) -> None:
        left = [str(bucket) for bucket in self._buckets if bucket not in self._graphs]
        if left:
            _LOG.warning(
                "batches of up to %s tokens run without a CUDA graph, which makes them slower: capturing took all of "
                "--graph-seconds or --graph-mib",
                ", ".join(left),
            )

    def takes(self, batch: Batch) -> bool:
        """Whether there is a graph for a batch."""
        return self._bucket_of(batch) in self._graphs

    def run(self, batch: Batch) -> Tensor | None:
        """Replay a batch; None where there is no graph for it.

        Returns:
            float32 (B, E): full vectors and, behind each, 1 where it is finite. The bucket's next replay overwrites
            them; what is queued on the stream before it still reads these.
        """
        bucket = self._bucket_of(batch)
        graph = self._graphs.get(bucket)
        if graph is None:
            return None
        host, host_words = graph.hosts[graph.turn]
        graph.turn = (graph.turn + 1) % _HOSTS
        graph.layout.write(host_words, batch, self._table(graph, batch, bucket))
        graph.words.copy_(host, non_blocking=True)
        graph.graph.replay()
        return graph.block_BE[: len(batch.items)]

    def _bucket_of(self, batch: Batch) -> int:
        """The tokens of the bucket that a batch falls into; 0 where it is too large for all of them."""
        place = bisect_left(self._buckets, batch.tokens)
        return 0 if place == len(self._buckets) or len(batch.items) > _MOST_TEXTS else self._buckets[place]

    def _table(self, graph: _Graph, batch: Batch, bucket: int) -> Int32Array:
        """The attention table of a batch; the last ones are remembered, since queries have few lengths."""
        key = batch.cu_seqlens_C.tobytes()
        if key not in graph.tables:
            if len(graph.tables) == _MOST_TABLES:
                graph.tables.clear()
            graph.tables[key] = self._slots(np.diff(batch.cu_seqlens_C), bucket).table_W
        return graph.tables[key]

    def _slots(self, lengths: Any, bucket: int) -> AttentionPlan:
        return self._forward.slots(lengths, bucket, min(bucket, _MOST_TEXTS))

    def _capture(self, bucket: int, alone: bool) -> _Graph:
        pool = self._memory.pool_for(alone)
        whole, rest = divmod(bucket, self._longest)
        lengths = np.array([self._longest] * whole + [rest] * (rest > 0), np.int32)
        sample = pack([Item(np.ones(length, np.int32), self._forward.task.width) for length in lengths])
        plan = self._slots(np.sort(lengths), bucket)
        layout = Layout.of(bucket, plan)
        buffers = [torch.empty(layout.words, dtype=torch.int32, pin_memory=True) for _ in range(_HOSTS)]
        hosts = [(buffer, buffer.numpy()) for buffer in buffers]
        layout.write(hosts[0][1], sample, plan.table_W)
        words = buffers[0].to(self._device)
        staged = layout.read(words, plan, words)
        self._forward(staged, self._forward.task.width)  # compiles kernels, which must not happen during capture
        torch.cuda.synchronize(self._device)
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        try:
            with torch.cuda.graph(graph, pool=pool, capture_error_mode=self._mode):
                staged = layout.read(words, plan, words)
                block_BE = self._forward(staged, self._forward.task.width)
        finally:
            torch.cuda.set_stream(stream)  # a failed capture leaves its own stream behind
        return _Graph(graph, layout, plan, words, hosts, staged, block_BE)

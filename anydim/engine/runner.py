"""Runner: one Batch through model and task, on one device.

It knows tensors and devices; it knows no queue, no waiters and no text, and not what the task makes of the states.
``start`` queues the work and returns at once where the device is asynchronous; ``finish`` waits and hands out Outputs.

Legend: T tokens in the batch, B texts, R rows that left the last layer, D full width, W widest dimension asked for,
E columns of a block: a vector's and a flag, C boundaries of the texts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from anydim.engine.control import Kind, Word
from anydim.engine.each_token import TokenFlight, not_finite, record_event, send_home
from anydim.engine.forward import Forward, Task
from anydim.engine.graphs import BUCKETS, GraphBudget, GraphMemory, GraphPool
from anydim.engine.metrics import Cause
from anydim.engine.packing import factor_out, pack
from anydim.engine.prefixes import LEAST_LENGTH, find_prefixes
from anydim.engine.ranks import Others
from anydim.engine.staging import Staged, stage
from anydim.heads.quantize import quantize
from anydim.kernels import FEW_TOKENS
from anydim.models.packed import Model
from anydim.models.upcast import in_float32
from anydim.types import Batch, Item, Output, OutputDtype, Pooling, Prefixes

_LOG = logging.getLogger(__name__)
_WARM_LENGTHS: Final = (8, 24, 128, 4096)  # one an attention tiling
_SHORT: Final = 8
_LEAST_DIM: Final = 128  # of what is compiled for itself; fewer components run as that many
_UPCAST: Final = torch.float32.itemsize


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one output dtype on their way back: their places in the packed batch, values and scales."""

    rows: Sequence[int]
    dtype: OutputDtype
    values: Tensor
    scales_B: Tensor | None


class WarmUp(NamedTuple):
    """Seconds that a warm-up took: running what compiles kernels, and capturing CUDA graphs."""

    kernels: float
    graphs: float


@dataclass(frozen=True, slots=True)
class Flight:
    """A batch that the device is working on.

    Attributes:
        batch: the batch.
        groups: its rows by output dtype.
        flags_BE: float32, whose last column is 1 where a row is finite, else 0.
        staged: what must live until the answer; a graph's buffers live with it.
        done: after this event all of it is in host memory; None where it already is.
    """

    batch: Batch
    groups: Sequence[Group]
    flags_BE: Tensor
    staged: Staged | None
    done: torch.cuda.Event | None


class Runner:
    """Model and task of one served model."""

    def __init__(
        self,
        model: Model,
        task: Task,
        device: torch.device,
        dtype: torch.dtype,
        share_prefixes: bool = False,
        prune: bool = True,
        others: Others | None = None,
    ) -> None:
        """Hold a loaded model.

        Args:
            model: the packed forward.
            task: what is made of its states.
            device: where its parameters lie.
            dtype: their precision.
            share_prefixes: compute what several texts of a batch begin with once, where model and pooling allow it.
            prune: let only the rows that pooling reads leave the last layer; without it they are picked afterwards.
            others: the other ranks that hold parts of the model, where there are any.
        """
        self.device = device
        self.dtype = dtype
        self._forward = Forward(model, task, dtype, prune)
        self._elsewhere = device.type == "cuda" and device.index != 0
        self._others = others
        self._graphs: GraphPool | None = None
        self.graph_memory = GraphMemory()
        """Where CUDA graphs are captured; several models may be given the same."""
        self._shares = share_prefixes and model.takes_prefixes and task.pooling is Pooling.LAST
        # Smaller batches on a GPU gain little from fewer tokens, and replay a graph, which knows no prefixes.
        self._shares_above = BUCKETS[-1] if device.type == "cuda" else 0

    @torch.inference_mode()
    def warm_up(self, most_tokens: int, longest: int, graphs: bool, budget: GraphBudget | None = None) -> WarmUp:
        """Compile kernels for texts up to ``longest`` tokens, and capture CUDA graphs for small batches.

        Args:
            most_tokens: the largest batch there will be.
            longest: tokens of the longest text.
            graphs: whether to capture, where the device can.
            budget: what capturing may take; None for no limit.
        """
        began = time.perf_counter()
        for length in _WARM_LENGTHS:
            # So long a text would not run either. Where others wait for their part of a sum there is no going on.
            with suppress(*(() if self._others else (torch.OutOfMemoryError,))):
                self._compile(min(length, longest), longest)
        if self.device.type == "cuda":
            self._compile_forms()
            with suppress(*(() if self._others else (torch.OutOfMemoryError,))):
                self._multiply(most_tokens)
        compiled = time.perf_counter()
        if graphs and self.device.type == "cuda":
            self._capture(self.make_graphs(most_tokens, longest), budget)
        return WarmUp(compiled - began, time.perf_counter() - compiled)

    def make_graphs(self, most_tokens: int, longest: int, several: bool = False) -> GraphPool:
        """A pool of CUDA graphs, still empty, that is used from now on; see GraphPool for the arguments."""
        several = several or self._others is not None
        self._graphs = GraphPool(self._forward, self.device, most_tokens, longest, self.graph_memory, several)
        return self._graphs

    def _capture(self, pool: GraphPool, budget: GraphBudget | None) -> None:
        if self._others is None:
            pool.capture(budget)
            return
        try:
            pool.capture(budget, partial(self._tell, Kind.CAPTURE, None), self._others.agree)
        except (OSError, EOFError):
            raise  # a rank is gone
        except Exception as error:
            _LOG.warning("CUDA graphs cannot be captured with --tp here: small batches are slower without (%s)", error)
            self._drop_graphs()
            self._tell(Kind.DROP, None)

    def _drop_graphs(self) -> None:
        if self._graphs is not None:
            self._graphs.drop()
        self._graphs = None

    def _compile(self, length: int, longest: int) -> None:
        # Texts that share nothing, so that what serves other texts is compiled: few tokens, and more than those.
        for texts in dict.fromkeys((2, max(2, FEW_TOKENS // length + 1))):
            items = [Item(np.full(length, token, np.int32), self._forward.task.width) for token in range(texts)]
            self.finish(self._send(pack(items), self._forward.task.width))
        if self._shares and longest > LEAST_LENGTH:
            self.finish(self.start(_warm_sharing(length, self._forward.task.width)))

    def _compile_forms(self) -> None:
        """What vectors of each size and type need: sizes share code up to the next power of two."""
        width = self._forward.task.width
        dims = [width, *(_LEAST_DIM << step for step in range(8) if _LEAST_DIM << step < width)]
        batches = [[Item(np.zeros(1, np.int32), dim)] for dim in dims]
        if width >= _LEAST_DIM:
            batches.append([Item(np.zeros(1, np.int32), _LEAST_DIM, dtype) for dtype in OutputDtype])
        for items in batches:
            self.finish(self._send(pack(items), max(item.dim for item in items)))

    def _multiply(self, most: int) -> None:
        self._tell(Kind.MULTIPLY, None, most)
        self._forward.multiply(most, self.device)

    @torch.inference_mode()
    def probe(self, tokens: int, longest: int) -> None:
        """Run two batches of so many tokens as one after another are in flight, so that their memory can be measured.

        Half of the tokens lie in texts of up to ``longest`` tokens, half in short ones that ask for scaled integers;
        nothing is shared or replayed.
        """
        lengths = [*_lengths(tokens - tokens // 2, longest), *_lengths(tokens // 2, min(_SHORT, longest))]
        batch = pack(
            [Item(np.zeros(length, np.int32), self._forward.task.width, OutputDtype.INT8) for length in lengths]
        )
        for flight in [self._send(batch, self._forward.task.width) for _ in range(2)]:
            self.finish(flight)

    @torch.inference_mode()
    def start(self, batch: Batch) -> Flight | TokenFlight:
        """Send a batch to the device."""
        if self._elsewhere:
            torch.cuda.set_device(self.device)  # the engine's thread begins on the first one
        widest = _widest(batch)
        if not batch.each_token:
            if self._others is not None and self._graphs is not None and self._graphs.takes(batch):
                self._tell(Kind.REPLAY, batch)
            replayed_BE = self._graphs.run(batch) if self._graphs else None
            if replayed_BE is not None:
                return self._fly_home(batch, replayed_BE, widest, None)
            batch = self._share(batch)
        return self._send(batch, widest)

    def _send(self, batch: Batch, widest: int) -> Flight | TokenFlight:
        """An eager forward."""
        self._tell(Kind.RUN, batch)
        return self._fly(batch, self._stage(batch), widest)

    def _stage(self, batch: Batch, itemsize: int | None = None) -> Staged:
        plan = self._forward.plan(np.diff(batch.cu_seqlens_C), batch.prefixes, itemsize)
        return stage(batch, plan, self.device)

    def _fly(self, batch: Batch, staged: Staged, widest: int) -> Flight | TokenFlight:
        """Where every token's state goes on no prefixes are shared, since each text has its own."""
        if batch.each_token:
            return send_home(batch, staged, self._forward.model(staged.packed, None), self._forward.task, widest)
        return self._fly_home(batch, self._forward(staged, widest), widest, staged)

    def finish(self, flight: Flight | TokenFlight) -> list[Output]:
        """Wait for a batch; one Output an Item, in packed order."""
        if isinstance(flight, TokenFlight):
            return flight.outputs()
        if flight.done is not None:
            flight.done.synchronize()
        finite = flight.flags_BE.numpy()[:, -1].tolist()
        if len(finite) == 1 and finite[0] and flight.groups[0].scales_B is None:
            return [_only_output(flight.batch.items[0], flight.groups[0].values)]
        outputs = {row: not_finite() for row, good in enumerate(finite) if not good}
        for group in flight.groups:
            values = group.values.numpy()
            scales = group.scales_B.tolist() if group.scales_B is not None else [None] * len(group.rows)
            for place, (row, scale) in enumerate(zip(group.rows, scales, strict=True)):
                if finite[row]:
                    stored = group.dtype.stored(flight.batch.items[row].dim)
                    outputs[row] = Output(values[place, :stored], scale)
        return [outputs[row] for row in range(len(finite))]

    @torch.inference_mode()
    def rescue(self, batch: Batch) -> list[Output]:
        """Run a batch once more with each weight upcast to float32 for the product that needs it (models/upcast.py).

        Where the weights are float32 already nothing would change: the texts fail without another forward.
        """
        if self.dtype.itemsize == torch.float32.itemsize:
            return [not_finite() for _ in batch.items]
        self._tell(Kind.RESCUE, batch)
        with in_float32(self._forward.model):
            flight = self._fly(batch, self._stage(batch, _UPCAST), _widest(batch))
        return self.finish(flight)

    @torch.inference_mode()
    def follow(self, word: Word) -> None:
        """Do what the first rank does, as it says; only the sums inside the model take notice of it."""
        batch = word.batch
        if word.kind is Kind.MULTIPLY:
            self._forward.multiply(word.number, self.device)
        elif batch is None:
            assert word.kind is Kind.DROP, "every other word comes with a batch"
            self._drop_graphs()
        elif word.kind is Kind.REPLAY:
            assert self._graphs is not None, "the graph was captured"
            self._graphs.run(batch)
        elif word.kind is Kind.RESCUE:
            with in_float32(self._forward.model):
                self._stay(batch, self._stage(batch, _UPCAST))
        else:
            self._stay(batch, self._stage(batch))

    @torch.inference_mode()
    def add_graph(self, tokens: int) -> None:
        """Capture the CUDA graph of a bucket, while the first rank does."""
        assert self._graphs is not None, "the first rank captures only where all do"
        self._graphs.add(tokens)

    def _stay(self, batch: Batch, staged: Staged) -> None:
        """A forward whose states go nowhere."""
        if batch.each_token:
            self._forward.model(staged.packed, None)
        else:
            self._forward(staged, 1)

    def _tell(self, kind: Kind, batch: Batch | None, number: int = 0) -> None:
        if self._others is not None:
            self._others.tell(kind, batch, number)

    def cause(self, error: Exception) -> Cause:
        """What an error is counted as."""
        return "out_of_memory" if isinstance(error, torch.OutOfMemoryError) else "failed"

    def is_fatal(self, error: Exception) -> bool:
        """Whether the device is lost, so that no later batch can succeed; running out of memory is not that.

        Of several ranks one that fails leaves the others waiting within a sum: none of them can go on.
        """
        lost = isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)
        return lost or self._others is not None

    def _fly_home(self, batch: Batch, block_BE: Tensor, widest: int, staged: Staged | None) -> Flight:
        """A batch on its way home: vectors and flags in one copy, where all of them are wanted as float32."""
        if all(item.dtype is OutputDtype.FLOAT32 for item in batch.items):
            home_BE = self._home(block_BE)
            groups = [Group(range(len(batch.items)), OutputDtype.FLOAT32, home_BE, None)]
            return Flight(batch, groups, home_BE, staged, record_event(self.device))
        groups = [
            Group(rows, dtype, self._home(values), None if scales_B is None else self._home(scales_B))
            for rows, dtype, values, scales_B in _convert(batch, block_BE[:, :widest])
        ]
        return Flight(batch, groups, self._home(block_BE[:, -1:]), staged, record_event(self.device))

    def _share(self, batch: Batch) -> Batch:
        """The batch with the prefixes that its texts share taken out, where that pays."""
        if not self._shares or batch.prefixes is not None or batch.tokens <= self._shares_above:
            return batch
        prefixes = find_prefixes(batch.ids_T, batch.cu_seqlens_C)
        return batch if prefixes is None else factor_out(batch, prefixes)

    def _home(self, tensor: Tensor) -> Tensor:
        """Start the copy back; on a GPU into pinned memory, read only behind the flight's event."""
        if self.device.type != "cuda":
            return tensor.cpu()
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return host.copy_(tensor, non_blocking=True)


def _warm_sharing(length: int, width: int) -> Batch:
    """Two texts of about ``length`` tokens that share all but their last, and enough short ones to bring the mean down.

    A shared prefix has at least ``LEAST_LENGTH`` tokens, so only the short ones make attention take its smallest tiles.
    """
    text = Item(np.ones(max(length, LEAST_LENGTH + 1), np.int32), width)
    short = Item(np.ones(1, np.int32), width)
    batch = pack([text, text, *[short] * (LEAST_LENGTH if length <= LEAST_LENGTH else 0)])
    prefix_B = np.where(np.diff(batch.cu_seqlens_C) > LEAST_LENGTH, 0, -1).astype(np.int32)
    return factor_out(batch, Prefixes(np.array([len(text.ids) - 1], np.int32), prefix_B))


def _lengths(tokens: int, most: int) -> list[int]:
    """So many tokens as texts of at most ``most``."""
    whole, rest = divmod(tokens, most)
    return [most] * whole + [rest] * (rest > 0)


def _widest(batch: Batch) -> int:
    return batch.items[0].dim if len(batch.items) == 1 else int(batch.dims_B.max())


def _only_output(item: Item, values_1V: Tensor) -> Output:
    """The Output of a batch of one text that came back whole; V stored values."""
    return Output(values_1V.numpy()[0, : item.dtype.stored(item.dim)])


def _convert(batch: Batch, vectors_BW: Tensor) -> Iterator[tuple[list[int], OutputDtype, Tensor, Tensor | None]]:
    """Quantise the rows, one group an output dtype; the common case of one dtype selects nothing."""
    dtypes = [item.dtype for item in batch.items]
    for dtype in dict.fromkeys(dtypes):
        rows = [row for row, other in enumerate(dtypes) if other is dtype]
        chosen_BW = vectors_BW if len(rows) == len(dtypes) else vectors_BW[rows]
        yield rows, dtype, *quantize(chosen_BW, dtype)

"""Runner: one Batch through model and heads, on one device.

It knows tensors, devices and the order of the heads; it knows no queue, no waiters and no text. ``start`` queues the
work and returns at once where the device is asynchronous; ``finish`` waits and hands out Outputs.

Legend: T tokens in the batch, B texts, S text slots, C = S + 1 boundaries, R rows that left the last
layer, D full width, W widest dimension asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anydim.engine.graphs import GraphPool
from anydim.engine.packing import pack
from anydim.engine.staging import Staged, stage
from anydim.errors import ComputeFailed
from anydim.heads.dimension import cut, normalize, rotate
from anydim.heads.pooling import pool, rows_needed
from anydim.heads.quantize import quantize
from anydim.kernels import AttentionPlan, make_plan, tile_bound, tile_shape, typical_length
from anydim.models.packed import Model
from anydim.types import Batch, Item, Output, OutputDtype, Pooling

_WARM_LENGTHS: Final = (8, 24, 128, 4096)  # one an attention tiling


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one output dtype on their way back: their places in the packed batch, values and scales."""

    rows: Sequence[int]
    dtype: OutputDtype
    values: Tensor
    scales_B: Tensor | None


@dataclass(frozen=True, slots=True)
class Flight:
    """A batch that the device is working on."""

    batch: Batch
    groups: Sequence[Group]
    finite_B: Tensor
    staged: Staged
    done: torch.cuda.Event | None


class Runner:
    """Model and heads of one served model."""

    def __init__(
        self,
        model: Model,
        pooling: Pooling,
        width: int,
        device: torch.device,
        dtype: torch.dtype,
        rotation_DD: Tensor | None = None,
        prune: bool = True,
    ) -> None:
        """Hold a loaded model.

        Args:
            model: the packed forward.
            pooling: how its states become one vector.
            width: components of its full vector.
            device: where its parameters lie.
            dtype: their precision.
            rotation_DD: the fitted rotation, float32 (D, D), or None.
            prune: let only the rows that pooling reads leave the last layer; without it they are picked afterwards.
        """
        self.device = device
        self._model = model
        self._pooling = pooling
        self._width = width
        self._itemsize = dtype.itemsize
        self._rotation_DD = rotation_DD
        self._prune = prune
        self._graphs: GraphPool | None = None

    @torch.inference_mode()
    def warm_up(self, most_tokens: int, longest: int, graphs: bool) -> None:
        """Compile kernels for texts up to ``longest`` tokens, and capture CUDA graphs for small batches."""
        for length in _WARM_LENGTHS:
            item = Item(np.ones(min(length, longest), np.int32), self._width)
            self.finish(self.start(pack([item] * 2)))
        if graphs and self.device.type == "cuda" and self._pooling in (Pooling.LAST, Pooling.CLS):
            self._graphs = GraphPool(self._vectors, self._plan, self.device, most_tokens, longest, self._width)

    @torch.inference_mode()
    def start(self, batch: Batch) -> Flight:
        """Send a batch to the device."""
        widest = int(batch.dims_B.max())
        replayed = self._graphs.run(batch) if self._graphs else None
        if replayed is None:
            lengths = np.diff(batch.cu_seqlens_C)
            staged = stage(batch, self._plan(lengths), self.device)
            vectors_BW, finite_B = self._vectors(staged, widest)
        else:
            staged, vectors_BW, finite_B = replayed
            vectors_BW = vectors_BW[:, :widest]
        groups = [
            Group(rows, dtype, self._home(values), None if scales_B is None else self._home(scales_B))
            for rows, dtype, values, scales_B in _convert(batch, vectors_BW)
        ]
        return Flight(batch, groups, self._home(finite_B), staged, self._event())

    def finish(self, flight: Flight) -> list[Output]:
        """Wait for a batch; one Output an Item, in packed order."""
        if flight.done is not None:
            flight.done.synchronize()
        finite = flight.finite_B.tolist()
        outputs = {row: _failed() for row, good in enumerate(finite) if not good}
        for group in flight.groups:
            values = group.values.numpy()
            scales = group.scales_B.tolist() if group.scales_B is not None else [None] * len(group.rows)
            for place, (row, scale) in enumerate(zip(group.rows, scales, strict=True)):
                if finite[row]:
                    stored = group.dtype.stored(flight.batch.items[row].dim)
                    outputs[row] = Output(values[place, :stored], scale)
        return [outputs[row] for row in range(len(finite))]

    def is_fatal(self, error: Exception) -> bool:
        """Whether the device is lost, so that no later batch can succeed; running out of memory is not that."""
        return isinstance(error, torch.AcceleratorError) and not isinstance(error, torch.OutOfMemoryError)

    def _plan(self, lengths_B: NDArray[np.int32], tokens: int | None = None, texts: int | None = None) -> AttentionPlan:
        """Lay out a batch; with ``tokens`` and ``texts``, into the slots of a graph that serves any such batch."""
        typical = typical_length(lengths_B) if tokens is None else tokens
        shape = tile_shape(typical, *self._model.head_counts, itemsize=self._itemsize)
        if tokens is None or texts is None:
            return make_plan(lengths_B, shape)
        tiles = tile_bound(tokens, texts, shape)
        return make_plan(lengths_B, shape, n_texts=texts, n_tiles=tiles, max_length=tokens)

    def _vectors(self, staged: Staged, widest: int) -> tuple[Tensor, Tensor]:
        """Model and heads: float32 (B, W), and whether each row is finite."""
        cu_seqlens_C = staged.packed.plan.cu_seqlens_S1
        assert cu_seqlens_C is not None, "a staged plan is bound"
        rows_R = rows_needed(self._pooling, cu_seqlens_C)
        hidden_RD = self._model(staged.packed, rows_R if self._prune else None)
        if rows_R is not None and not self._prune:
            hidden_RD = hidden_RD[rows_R]
        pooled_BD = pool(hidden_RD, self._pooling, cu_seqlens_C)
        if self._rotation_DD is not None:
            pooled_BD = rotate(pooled_BD, self._rotation_DD)
        return normalize(cut(pooled_BD, staged.dims_B, widest), staged.unit_B)

    def _home(self, tensor: Tensor) -> Tensor:
        """Start the copy back; on a GPU into pinned memory, read only behind the flight's event."""
        if self.device.type != "cuda":
            return tensor.cpu()
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return host.copy_(tensor, non_blocking=True)

    def _event(self) -> torch.cuda.Event | None:
        if self.device.type != "cuda":
            return None
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return event


def _failed() -> Output:
    error = ComputeFailed("the model gave no finite vector for this input")
    return Output(np.empty(0, np.float32), error=error)


def _convert(batch: Batch, vectors_BW: Tensor) -> Iterator[tuple[list[int], OutputDtype, Tensor, Tensor | None]]:
    """Quantise the rows, one group an output dtype; the common case of one dtype selects nothing."""
    dtypes = [item.dtype for item in batch.items]
    for dtype in dict.fromkeys(dtypes):
        rows = [row for row, other in enumerate(dtypes) if other is dtype]
        chosen_BW = vectors_BW if len(rows) == len(dtypes) else vectors_BW[rows]
        yield rows, dtype, *quantize(chosen_BW, dtype)

"""Forward: model and task of one served model as one call, the same for batches run at once and for captured ones.

It knows tensors and how attention is laid out; it knows no queue, no graphs and no text, and not what the task makes of
the states.

Legend: T tokens in the batch, B texts, S text slots, R rows that left the last layer, D full width, E columns of a
block: a text's values and a flag.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anydim.engine.staging import Staged
from anydim.heads.pooling import pool, rows_needed
from anydim.kernels import AttentionPlan, make_plan, tile_bound, tile_shape, typical_length
from anydim.models.packed import Model
from anydim.types import Pooling, Prefixes

_MOST_ROWS: Final = 1 << 15  # more take the same kernels
_STEP: Final = 1.01  # from one number of rows to the next one that is tried


class Task(Protocol):
    """What is made of the states that leave the model; see engine/embedding.py and engine/scoring.py."""

    @property
    def pooling(self) -> Pooling:
        """Which rows it reads."""
        ...

    @property
    def width(self) -> int:
        """Most values of one text."""
        ...

    def __call__(self, pooled_BD: Tensor, dims_B: Tensor, unit_B: Tensor, widest: int) -> Tensor:
        """Float32 (B, E) of float32 states: the ``widest`` values of each, and behind them whether they are finite."""
        ...


class Forward:
    """Model and task, and the layouts that the model's attention wants."""

    def __init__(self, model: Model, task: Task, dtype: torch.dtype, prune: bool = True) -> None:
        """Hold a loaded model.

        Args:
            model: the packed forward.
            task: what is made of its states.
            dtype: the precision of its states.
            prune: let only the rows that pooling reads leave the last layer; without it they are picked afterwards.
        """
        self.model = model
        self.task = task
        self._dtype = dtype
        self._prune = prune

    def plan(
        self, lengths_B: NDArray[np.int32], prefixes: Prefixes | None = None, itemsize: int | None = None
    ) -> AttentionPlan:
        """Lay out one batch; ``itemsize`` where its weights are upcast."""
        shape = tile_shape(
            typical_length(lengths_B, prefixes), *self.model.head_counts, itemsize=itemsize or self._dtype.itemsize
        )
        return make_plan(lengths_B, shape, prefixes=prefixes, dense=self.model.takes_dense)

    def slots(self, lengths_B: NDArray[np.int32], tokens: int, texts: int) -> AttentionPlan:
        """Lay out a batch in S = ``texts`` slots of ``tokens`` tokens together, as any such batch is laid out."""
        shape = tile_shape(tokens, *self.model.head_counts, itemsize=self._dtype.itemsize, is_small=True)
        tiles = tile_bound(tokens, texts, shape)
        return make_plan(lengths_B, shape, n_texts=texts, n_tiles=tiles, max_length=tokens)

    @torch.inference_mode()
    def multiply(self, most: int, device: torch.device) -> None:
        """Multiply up to ``most`` rows of zeros by the weights, so that the code for batches of all sizes is loaded.

        The library behind products chooses among a hundred kernels by the number of rows, and loads each when it is
        first asked for. For that it waits until the device has done everything: a batch that comes then holds up all.
        """
        products = self.model.products()
        for rows in _row_counts(min(most, _MOST_ROWS)):
            for product in products:
                product.run(torch.zeros(rows, product.width, dtype=self._dtype, device=device))

    def __call__(self, staged: Staged, widest: int) -> Tensor:
        """Float32 (B, E), each text's values and behind them whether they are finite."""
        rows_R = rows_needed(self.task.pooling, staged.boundaries)
        hidden_RD = self.model(staged.packed, rows_R if self._prune else None)
        if rows_R is not None and not self._prune:
            hidden_RD = hidden_RD[rows_R]
        pooled_BD = pool(hidden_RD, self.task.pooling, staged.boundaries)
        return self.task(pooled_BD, staged.dims_B, staged.unit_B, widest)


def _row_counts(most: int) -> Iterator[int]:
    """Numbers of rows from 1 to ``most``, one in a hundred apart."""
    rows = 1
    while rows < most:
        yield rows
        rows = max(rows + 1, int(_STEP * rows))
    yield most

"""Each token: the way home of a batch whose Items want a vector a token instead of one a text.

It knows hidden states and host memory; it knows no model, no queue and no text. The states are finished a slice at a
time, so that the device holds a few of them in float32 and no more.

Legend: T tokens in the batch, S tokens of a slice, B texts, C = B + 1 boundaries, D full width, E columns of a block:
a vector's and a flag.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from anydim.engine.staging import Staged
from anydim.errors import ComputeFailed
from anydim.types import Batch, Output

_SLICE: Final = 1024

Finish = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""Float32 states (S, D), their dimensions, whether they get length one, and the widest: a block (S, E)."""


@dataclass(frozen=True, slots=True)
class TokenFlight:
    """A batch on its way home.

    Attributes:
        batch: the batch.
        block_TE: float32 in host memory: each token's vector, and behind it 1 where it is finite, else 0.
        staged: what must live until the answer.
        done: after this event all of it is there; None where it already is.
    """

    batch: Batch
    block_TE: Tensor
    staged: Staged
    done: torch.cuda.Event | None

    def outputs(self) -> list[Output]:
        """Wait; one Output an Item, in packed order, with values (tokens, dim). A text fails as a whole."""
        if self.done is not None:
            self.done.synchronize()
        block_TE, bounds = self.block_TE.numpy(), self.batch.cu_seqlens_C.tolist()
        return [
            # Copies: what one text's reader keeps must not hold the whole batch.
            Output(block_TE[begin:end, : item.dim].copy()) if block_TE[begin:end, -1].all() else not_finite()
            for item, begin, end in zip(self.batch.items, bounds, bounds[1:], strict=False)
        ]


def send_home(batch: Batch, staged: Staged, hidden_TD: Tensor, finish: Finish, widest: int) -> TokenFlight:
    """Make vectors of all states and start their copy to the host.

    Args:
        batch: texts that share no prefixes.
        staged: the batch on the device.
        hidden_TD: the states of all tokens, in the model's dtype.
        finish: what is made of states.
        widest: the largest dimension that a text asked for.
    """
    device = hidden_TD.device
    lengths_B = staged.boundaries.diff()
    dims_T = torch.repeat_interleave(staged.dims_B, lengths_B, output_size=batch.tokens)
    unit_T = torch.repeat_interleave(staged.unit_B, lengths_B, output_size=batch.tokens)
    block_TE = torch.empty((batch.tokens, widest + 1), dtype=torch.float32, pin_memory=device.type == "cuda")
    for begin in range(0, batch.tokens, _SLICE):
        part = slice(begin, begin + _SLICE)
        block_SE = finish(hidden_TD[part].float(), dims_T[part], unit_T[part], widest)
        block_TE[part].copy_(block_SE, non_blocking=device.type == "cuda")  # elsewhere nothing says when it is done
    return TokenFlight(batch, block_TE, staged, record_event(device))


def record_event(device: torch.device) -> torch.cuda.Event | None:
    """An event behind what was sent to a device so far; None where nothing is left to wait for."""
    if device.type != "cuda":
        return None
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return event


def not_finite() -> Output:
    """The Output of a text on which the model failed."""
    error = ComputeFailed("the model gave no finite vector for this input")
    return Output(np.empty(0, np.float32), error=error)

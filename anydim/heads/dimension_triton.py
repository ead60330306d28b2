"""The dimension head as one Triton kernel: cut, scale to length one, and say whether the row is finite.

Equal to `dimension.finish`. Imported only on CUDA devices. It knows nothing of models or requests.

Legend: B texts, D full width, W widest dimension in the batch, E = W + 1.
"""
# mypy: disable-error-code="import-untyped,import-not-found,untyped-decorator"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit(do_not_specialize_on_alignment=["dim_ptr", "unit_ptr"])  # they lie where a batch's other arrays end
def _finish_kernel(
    pooled_ptr: tl.tensor,
    dim_ptr: tl.tensor,
    unit_ptr: tl.tensor,
    block_ptr: tl.tensor,
    stride: tl.tensor,
    widest: tl.tensor,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    w_W = tl.arange(0, BLOCK)
    kept_W = w_W < tl.load(dim_ptr + row)
    value_W = tl.load(pooled_ptr + row * stride + w_W, mask=kept_W, other=0.0).to(tl.float32)
    length = tl.sqrt(tl.sum(value_W * value_W))
    divisor = tl.where(tl.load(unit_ptr + row) != 0, tl.maximum(length, 1e-12), 1.0)
    block_ptr += row * (widest + 1)
    tl.store(block_ptr + w_W, value_W / divisor, mask=w_W < widest)
    tl.store(block_ptr + widest, (length < float("inf")).to(tl.float32))


def finish(pooled_BD: Tensor, dims_B: Tensor, unit_B: Tensor, widest: int) -> Tensor:
    """Equal to `dimension.finish`."""
    rows = pooled_BD.shape[0]
    block_BE = torch.empty((rows, widest + 1), dtype=torch.float32, device=pooled_BD.device)
    size = max(128, triton.next_power_of_2(widest))
    _finish_kernel[(rows,)](
        pooled_BD, dims_B, unit_B, block_BE, pooled_BD.stride(0), widest, size, num_warps=4 if size <= 2048 else 8
    )
    return block_BE

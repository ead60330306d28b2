"""A decoder layer of few tokens in seven Triton kernels: each product joined with what stands behind it.

Equal to fused.py. Imported only when Triton is chosen. Such a layer is bound by the reading of its weights: a product
takes them as the left operand, 64 rows a program, and all tokens at once as the right one. Where there would be fewer
programs than multiprocessors, several share a tile along K; the last to arrive adds their parts, always in the same
order. On Hopper and later a kernel starts while the one before it ends (programmatic dependent launch).

Shapes: T tokens, M token slots of a program (a power of two), D hidden width, I channels in, O channels out, N those
of a program, K channels summed over, F fused gate and up columns, G = F/2, C columns of the fused qkv block, E head
width, R rows, H = E/2, P positions, Q query rows of a program (token, head), S key slots.
"""
# mypy: disable-error-code="import-untyped,import-not-found,untyped-decorator"

from __future__ import annotations

import math
from typing import Any, Final

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
from triton.tools.tensor_descriptor import TensorDescriptor

from anydim.kernels import FEW_TOKENS
from anydim.kernels.launch import early, shared_memory
from anydim.kernels.norm_triton import rms_norm_kernel, row_block
from anydim.kernels.plan import AttentionPlan
from anydim.kernels.rope_triton import normalise_halves
from anydim.kernels.scaled import Scaled
from anydim.kernels.scaled_triton import quantize_rows, rms_norm_scaled

_ROWS: Final = 64  # output channels of a program: the least that Hopper's matrix instruction takes on its left
_BLOCK_K: Final = 128
_SPARE: Final = 2048  # bytes of shared memory for barriers and what a sum is exchanged through
_PROGRAMS: Final = 120  # about one a multiprocessor


@triton.jit
def _product_kernel(
    x_ptr: tl.tensor,
    weights: tl.tensor,
    x_scale_ptr: tl.tensor,
    scale_ptr: tl.tensor,
    residual_ptr: tl.tensor,
    out_ptr: tl.tensor,
    parts_ptr: tl.tensor,
    arrived_ptr: tl.tensor,
    n_tokens: tl.tensor,
    N: tl.constexpr,
    K: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SPLIT: tl.constexpr,
    STAGES: tl.constexpr,
    GATED: tl.constexpr,
    PRECISION: tl.constexpr,
    SUM: tl.constexpr,
    DEPENDENT: tl.constexpr,
) -> None:
    """One tile of ROWS output channels for all tokens, or one of the SPLIT parts of its sum.

    x_scale_ptr, scale_ptr: of 8-bit tokens and weights, one a row, or None. residual_ptr: added to the product, or
    None. GATED: SiLU of the first N channels times the second N. SUM: the type of the running sums.
    """
    blocks: tl.constexpr = (K + BLOCK_K - 1) // BLOCK_K
    tile, part = tl.program_id(0) // SPLIT, tl.program_id(0) % SPLIT
    begin, end = part * blocks // SPLIT, (part + 1) * blocks // SPLIT
    m_M, n_N, k_K = tl.arange(0, TOKENS), tile * ROWS + tl.arange(0, ROWS), tl.arange(0, BLOCK_K)
    inside_M1 = (m_M < n_tokens)[:, None]
    if DEPENDENT:
        gdc_wait()
    sum_NM = tl.zeros([ROWS, TOKENS], dtype=SUM)
    up_NM = tl.zeros([ROWS, TOKENS], dtype=SUM)
    for block in tl.range(begin, end, num_stages=STAGES):
        channel_K = block * BLOCK_K + k_K
        inside_MK = inside_M1 & (channel_K < K)[None, :]
        x_MK = tl.load(x_ptr + m_M[:, None] * K + channel_K[None, :], mask=inside_MK, other=0.0)
        x_KM = tl.trans(x_MK)
        sum_NM = tl.dot(
            weights.load([tile * ROWS, block * BLOCK_K]), x_KM, sum_NM, input_precision=PRECISION, out_dtype=SUM
        )
        if GATED:
            up_NM = tl.dot(
                weights.load([N + tile * ROWS, block * BLOCK_K]), x_KM, up_NM, input_precision=PRECISION, out_dtype=SUM
            )
    if DEPENDENT:
        gdc_launch_dependents()
    sum_NM, up_NM = sum_NM.to(tl.float32), up_NM.to(tl.float32)
    at_NM = m_M[None, :] * N + n_N[:, None]
    inside_NM = (m_M < n_tokens)[None, :] & (n_N < N)[:, None]
    last = True
    if SPLIT > 1:
        part_NM = tile * SPLIT * (ROWS * TOKENS) + tl.arange(0, ROWS)[:, None] * TOKENS + m_M[None, :]
        tl.store(parts_ptr + part_NM + part * (ROWS * TOKENS), sum_NM)
        tl.debug_barrier()
        last = tl.atomic_add(arrived_ptr + tile, 1, sem="acq_rel") == SPLIT - 1
        if last:
            tl.store(arrived_ptr + tile, 0)
            sum_NM = tl.zeros([ROWS, TOKENS], dtype=tl.float32)
            for other in tl.static_range(SPLIT):
                sum_NM += tl.load(parts_ptr + part_NM + other * (ROWS * TOKENS), cache_modifier=".cg")
    if last:
        if scale_ptr is not None:
            x_scale_1M = tl.load(x_scale_ptr + m_M, mask=m_M < n_tokens, other=0.0)[None, :]
            sum_NM *= tl.load(scale_ptr + n_N, mask=n_N < N, other=0.0)[:, None] * x_scale_1M
            if GATED:
                up_NM *= tl.load(scale_ptr + N + n_N, mask=n_N < N, other=0.0)[:, None] * x_scale_1M
        # Rounded where the separate kernels round, so that few tokens and many give the same vectors. In 8 bits the
        # gated activation is rounded once more here: its scale is only known when the whole row is there.
        y_NM = sum_NM.to(out_ptr.dtype.element_ty)
        if GATED:
            gate_NM = y_NM.to(tl.float32)
            y_NM = gate_NM * tl.sigmoid(gate_NM) * up_NM.to(out_ptr.dtype.element_ty).to(tl.float32)
        if residual_ptr is not None:
            y_NM = y_NM.to(tl.float32) + tl.load(residual_ptr + at_NM, mask=inside_NM, other=0.0).to(tl.float32)
        tl.store(out_ptr + at_NM, y_NM, mask=inside_NM)


@triton.jit
def _normed_rotated(
    block_ptr: tl.tensor,
    weight_ptr: tl.tensor,
    cos_ptr: tl.tensor,
    sin_ptr: tl.tensor,
    position_Q: tl.tensor,
    at_Q: tl.tensor,
    inside_Q: tl.tensor,
    eps: tl.tensor,
    HALF: tl.constexpr,
) -> tl.tensor:
    """Both halves of some heads, RMS-normalised and rotated, in the block's dtype."""
    h_H = tl.arange(0, HALF)
    inside_Q1 = inside_Q[:, None]
    a_QH = tl.load(block_ptr + at_Q[:, None] + h_H[None, :], mask=inside_Q1, other=0.0).to(tl.float32)
    b_QH = tl.load(block_ptr + at_Q[:, None] + HALF + h_H[None, :], mask=inside_Q1, other=0.0).to(tl.float32)
    a_QH, b_QH = normalise_halves(a_QH, b_QH, weight_ptr, eps, HALF)
    angle_QH = position_Q[:, None] * HALF + h_H[None, :]
    cos_QH = tl.load(cos_ptr + angle_QH, mask=inside_Q1, other=0.0)
    sin_QH = tl.load(sin_ptr + angle_QH, mask=inside_Q1, other=0.0)
    dtype = block_ptr.dtype.element_ty
    return (a_QH * cos_QH - b_QH * sin_QH).to(dtype), (b_QH * cos_QH + a_QH * sin_QH).to(dtype)


@triton.jit(do_not_specialize_on_alignment=["position_ptr", "tile_ptr"])
def _attend_raw_kernel(
    qkv_ptr: tl.tensor,
    position_ptr: tl.tensor,
    q_norm_ptr: tl.tensor,
    k_norm_ptr: tl.tensor,
    cos_ptr: tl.tensor,
    sin_ptr: tl.tensor,
    out_ptr: tl.tensor,
    tile_ptr: tl.tensor,
    scale_log2: tl.tensor,
    eps: tl.tensor,
    N_HEADS: tl.constexpr,
    N_KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    TOKENS: tl.constexpr,
    HEADS: tl.constexpr,
    KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
    DEPENDENT: tl.constexpr,
) -> None:
    blocks: tl.constexpr = N_HEADS // HEADS
    stride: tl.constexpr = (N_HEADS + 2 * N_KV_HEADS) * 2 * HALF
    if DEPENDENT:
        gdc_wait()
        gdc_launch_dependents()
    tile, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    start = tl.load(tile_ptr + tile * 3)
    end = tl.load(tile_ptr + tile * 3 + 1)
    first = tl.load(tile_ptr + tile * 3 + 2)
    if first >= end:
        return
    q_Q, s_S = tl.arange(0, TOKENS * HEADS), tl.arange(0, KEYS)
    token_Q, key_S = first + q_Q // HEADS, start + s_S
    inside_Q, inside_S = token_Q < end, key_S < end
    column_Q = (block * HEADS + q_Q % HEADS) * (2 * HALF)
    k_column = (N_HEADS + block * HEADS * N_KV_HEADS // N_HEADS) * (2 * HALF)
    q_position_Q = tl.load(position_ptr + token_Q, mask=inside_Q, other=0)
    k_position_S = tl.load(position_ptr + key_S, mask=inside_S, other=0)
    qa_QH, qb_QH = _normed_rotated(
        qkv_ptr, q_norm_ptr, cos_ptr, sin_ptr, q_position_Q, token_Q * stride + column_Q, inside_Q, eps, HALF
    )
    ka_SH, kb_SH = _normed_rotated(
        qkv_ptr, k_norm_ptr, cos_ptr, sin_ptr, k_position_S, key_S * stride + k_column, inside_S, eps, HALF
    )
    score_QS = tl.dot(qa_QH, tl.trans(ka_SH), input_precision=PRECISION)
    score_QS = tl.dot(qb_QH, tl.trans(kb_SH), score_QS, input_precision=PRECISION) * scale_log2
    # A query past the end of its text is never stored, so no row is without a key.
    score_QS = tl.where(token_Q[:, None] >= key_S[None, :], score_QS, float("-inf"))
    p_QS = tl.exp2(score_QS - tl.max(score_QS, axis=1)[:, None])
    e_E = tl.arange(0, 2 * HALF)
    v_ptrs = qkv_ptr + (key_S * stride + k_column + N_KV_HEADS * 2 * HALF)[:, None] + e_E[None, :]
    v_SE = tl.load(v_ptrs, mask=inside_S[:, None], other=0.0)
    out_QE = tl.dot(p_QS.to(v_SE.dtype), v_SE, input_precision=PRECISION) / tl.sum(p_QS, axis=1)[:, None]
    out_ptrs = out_ptr + (token_Q * (N_HEADS * 2 * HALF) + column_Q)[:, None] + e_E[None, :]
    tl.store(out_ptrs, out_QE, mask=inside_Q[:, None])


class FusedKernels:
    """The fused kernels with the scratch memory of their split sums, for one stream of one device.

    The scratch (partial sums, and counters that are zero between launches) must outlive every captured graph.
    """

    def __init__(self, device: torch.device) -> None:
        """Allocate the scratch."""
        most = _PROGRAMS * 2  # programs that share tiles: rounding may give half of them again
        self._arrived = torch.zeros(most, dtype=torch.int32, device=device)
        self._parts = torch.empty(most * _ROWS * FEW_TOKENS, dtype=torch.float32, device=device)
        self._early = early(device)
        self._memory = shared_memory(device) - _SPARE

    def rms_norm(self, x_TD: Tensor, weight_D: Tensor, eps: float, dtype: torch.dtype | None = None) -> Tensor | Scaled:
        """Equal to `norm.rms_norm`, or with the type of 8-bit rows to `scaled.rms_norm_scaled`."""
        if dtype is not None:
            return rms_norm_scaled(x_TD, weight_D, eps, dtype)
        tokens, width = x_TD.shape
        y_TD = x_TD.new_empty(x_TD.shape)
        rms_norm_kernel[(tokens,)](
            x_TD, weight_D, y_TD, x_TD.stride(0), eps, width, row_block(width), **self._launch(num_warps=4)
        )
        return y_TD

    def linear(self, x_TI: Tensor | Scaled, weight_OI: Tensor | Scaled) -> Tensor:
        """Equal to `fused.linear`."""
        out_TO = self._out(x_TI, weight_OI.shape[0])
        self._product(x_TI, weight_OI, out_TO, num_stages=5)
        return out_TO

    def gate_up(self, x_TD: Tensor | Scaled, weight_FD: Tensor | Scaled) -> Tensor:
        """Equal to `fused.gate_up`."""
        out_TG = self._out(x_TD, weight_FD.shape[0] // 2)
        self._product(x_TD, weight_FD, out_TG, gated=True, num_stages=4)
        return out_TG

    def linear_add_(self, x_TI: Tensor, weight_DI: Tensor | Scaled, residual_TD: Tensor) -> None:
        """Equal to `fused.linear_add_`, IN PLACE on residual_TD."""
        tiles, blocks = triton.cdiv(weight_DI.shape[0], _ROWS), triton.cdiv(weight_DI.shape[1], _BLOCK_K)
        split = max(1, min(4, round(_PROGRAMS / tiles), blocks // 2))
        self._product(x_TI, weight_DI, residual_TD, residual_TD=residual_TD, split=split, num_stages=5)

    def attend_raw(
        self,
        qkv_TC: Tensor,
        positions_T: Tensor,
        norms_EE: tuple[Tensor, Tensor],
        tables_PF: tuple[Tensor, Tensor],
        plan: AttentionPlan,
        n_heads: int,
        n_kv_heads: int,
        eps: float,
    ) -> Tensor:
        """Equal to `fused.attend_raw` for texts of at most FEW_TOKENS tokens. The block stays as it is."""
        half = tables_PF[0].shape[1]
        assert plan.tiles_N3 is not None, "the plan is bound to no device"
        assert plan.max_length <= FEW_TOKENS, "a text is longer than a block of keys"
        out_TO = qkv_TC.new_empty((qkv_TC.shape[0], n_heads * 2 * half))
        shape = plan.shape
        _attend_raw_kernel[(plan.n_tiles * (n_heads // shape.heads),)](
            qkv_TC,
            positions_T,
            *norms_EE,
            *tables_PF,
            out_TO,
            plan.tiles_N3,
            (2 * half) ** -0.5 * math.log2(math.e),
            eps,
            n_heads,
            n_kv_heads,
            half,
            shape.tokens,
            shape.heads,
            max(16, triton.next_power_of_2(plan.max_length)),
            _precision(qkv_TC.dtype),
            **self._launch(num_warps=4),
        )
        return out_TO

    def _product(
        self,
        x: Tensor | Scaled,
        weight: Tensor | Scaled,
        out_TN: Tensor,
        *,
        residual_TD: Tensor | None = None,
        gated: bool = False,
        split: int = 1,
        num_stages: int,
    ) -> None:
        if isinstance(weight, Scaled) and isinstance(x, Tensor):
            x = quantize_rows(x, weight.values_RC.dtype)
        x_TK, x_scale_T = _parted(x)
        weight_OK, scale_O = _parted(weight)
        tokens, width = x_TK.shape
        assert tokens <= FEW_TOKENS and x_TK.is_contiguous() and out_TN.is_contiguous()
        block_k = _BLOCK_K if gated or scale_O is None else 2 * _BLOCK_K
        slots, tiles = max(16, triton.next_power_of_2(tokens)), triton.cdiv(out_TN.shape[1], _ROWS)
        stage = ((2 if gated else 1) * _ROWS + slots) * block_k * weight_OK.element_size()
        assert split == 1 or tiles * split <= len(self._arrived), "more programs than the scratch is for"
        _product_kernel[(tiles * split,)](
            x_TK,
            TensorDescriptor.from_tensor(weight_OK, [_ROWS, block_k]),
            x_scale_T,
            scale_O,
            residual_TD,
            out_TN,
            self._parts,
            self._arrived,
            tokens,
            out_TN.shape[1],
            width,
            slots,
            _ROWS,
            block_k,
            split,
            max(2, min(num_stages, self._memory // stage)),
            gated,
            _precision(x_TK.dtype),
            tl.int32 if weight_OK.dtype is torch.int8 else tl.float32,
            **self._launch(num_warps=4),
        )

    def _out(self, x: Tensor | Scaled, width: int) -> Tensor:
        """An empty result beside a product's input; 8-bit products give bfloat16."""
        if isinstance(x, Scaled):
            return x.scale_R.new_empty((x.shape[0], width), dtype=torch.bfloat16)
        return x.new_empty((x.shape[0], width))

    def _launch(self, num_warps: int) -> dict[str, Any]:
        """The arguments every launch shares."""
        return {"num_warps": num_warps, **self._early}


def _parted(x: Tensor | Scaled) -> tuple[Tensor, Tensor | None]:
    """A matrix and its scales, if it has any."""
    return (x.values_RC, x.scale_R) if isinstance(x, Scaled) else (x, None)


def _precision(dtype: torch.dtype) -> str:
    """Float32 products stay exact."""
    return "ieee" if dtype == torch.float32 else "tf32"

"""Rotary positions (RoPE) with Qwen3's per-head RMSNorm of queries and keys, in plain torch.

Works on any device and dtype; the Triton twin is rope_triton.py. Knows the fused qkv block, not the model.

Shapes: T tokens, C columns of the block (all q heads, then all k heads, then all v heads), H heads,
E width of a head, P positions, F = E/2 frequencies.
"""

from __future__ import annotations

import torch
from torch import Tensor

from anydim.kernels.norm import rms_norm


def rope_tables(head_dim: int, theta: float, max_positions: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotation angles (Su et al. 2021, arXiv 2104.09864): cos_PF, sin_PF, float32.

    Angle of position p and frequency f: p * theta ** (-2 f / head_dim), computed in float32 as transformers does.
    """
    if torch.device(device).type == "meta":  # where arithmetic would make torch import for three seconds
        cos_PF, sin_PF = (torch.empty(max_positions, head_dim // 2, device=device) for _ in range(2))
        return cos_PF, sin_PF
    exponent_F = torch.arange(0, head_dim, 2, dtype=torch.int64, device=device).float() / head_dim
    position_P = torch.arange(max_positions, dtype=torch.float32, device=device)
    angle_PF = position_P[:, None] * (1.0 / theta**exponent_F)[None, :]
    return angle_PF.cos(), angle_PF.sin()


def qk_norm_rope_(
    qkv_TC: Tensor,
    positions_T: Tensor,
    q_weight_E: Tensor | None,
    k_weight_E: Tensor | None,
    cos_PF: Tensor,
    sin_PF: Tensor,
    n_heads: int,
    n_kv_heads: int,
    eps: float,
) -> None:
    """Normalise each q and k head (no norm where its weight is None), then rotate it. IN PLACE on qkv_TC.

    Rotation by halves, as transformers' Qwen3: (a, b) -> (a cos - b sin, b cos + a sin). Columns after the k heads
    are left alone. Either head count may be 0: a block of only q, or of only k and v. positions_T: integers.
    """
    head_dim = 2 * cos_PF.shape[1]
    cos_T1F, sin_T1F = cos_PF[positions_T][:, None], sin_PF[positions_T][:, None]
    first = 0
    for n, weight_E in ((n_heads, q_weight_E), (n_kv_heads, k_weight_E)):
        part_THE = qkv_TC[:, first : first + n * head_dim].view(len(qkv_TC), n, head_dim)
        heads_THE = part_THE.float()
        if weight_E is not None:
            heads_THE = rms_norm(heads_THE, weight_E, eps)
        part_THE.copy_(_rotate(heads_THE, cos_T1F, sin_T1F))
        first += n * head_dim


def _rotate(heads_THE: Tensor, cos_T1F: Tensor, sin_T1F: Tensor) -> Tensor:
    a_THF, b_THF = heads_THE.chunk(2, dim=-1)
    return torch.cat((a_THF * cos_T1F - b_THF * sin_T1F, b_THF * cos_T1F + a_THF * sin_T1F), dim=-1)

"""Rotations: orthogonal matrices after which the first components of a vector say more, fitted on documents' vectors.

All are plain functions from rows to one matrix, so that serving costs one product whatever the way of fitting. Cosines
of full vectors stay. It knows rows; it knows no model, no file and no judgement of what is better.

Legend: N documents, D full dimension, H components of the head, K of them that are learned, R others, B documents of
a batch, d components that are kept, S components of a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from anydim.quality.workers import one_thread_each

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""

Rotate = Callable[[Tensor, Progress], Tensor]

_ROWS: Final = 65_536  # of a sum at a time
_HEAD: Final = 512  # most leading components that learning may mix
_HEAD_SHARE: Final = 5 / 6  # and most of the width: cuts from there on hold what svd's hold
_KEPT: Final = MappingProxyType(  # components at which neighbours shall be kept, and how much each of them counts
    {32: 1.0, 64: 1.0, 96: 1.0, 128: 1.0, 192: 2.0, 256: 2.0, 320: 2.0, 384: 2.0, 448: 2.0}
)
_STEPS: Final = 150
_BATCH: Final = 512
_RATE: Final = 2.5e-3
_SOFT: Final = 0.05  # cosines are divided by it before the softmax
_SHARPEN: Final = 2e-2  # rate at which sharpness is learned
_WEAKEST: Final = 1e-3  # share of the strongest direction below which a direction is not made stronger
_FAR: Final = 1e9
_STEP: Final = 32  # vectors are cut at multiples of it
_SIGN_ROUNDS: Final = 30
_SIGN_ROWS: Final = 10_000


def by_moment(rows_ND: Tensor, progress: Progress = lambda *_: None) -> Tensor:
    """Axes of the second moment, strongest first: the right singular vectors of the rows, not centred.

    Returns:
        float32 (D, D); a row is multiplied by it from the right. Of each axis the largest component is positive.
    """
    return _axes(_moment(rows_ND))


def by_spread(rows_ND: Tensor, progress: Progress = lambda *_: None) -> Tensor:
    """Axes of the covariance: what all documents have in common, which tells none apart, comes last.

    Returns:
        float32 (D, D).
    """
    mean_D = rows_ND.mean(dim=0, dtype=torch.float64)
    return _axes(_moment(rows_ND) - torch.outer(mean_D, mean_D))


def by_neighbours(rows_ND: Tensor, progress: Progress = lambda *_: None) -> Tensor:
    """A rotation learned so that documents, cut at several dimensions at once, keep the neighbours that they have at
    full width, with strong directions damped.

    Each step draws documents, takes their soft neighbours (a softmax over the cosines in the batch) after
    half-whitening, and follows the gradient of the cross-entropy with the soft neighbours after each cut, summed over
    the dimensions; how sharp the latter are is learned with it. The matrix is put back onto the orthogonal ones by
    Newton and Schulz' iteration after each step, so that full cosines stay. Source of the objective: stochastic
    neighbour embedding (Hinton and Roweis, 2002), here for a linear map.

    Learning stays within the head, which is the strongest five sixths of the axes of ``by_moment``: a cut of the head,
    as every longer one, holds exactly what that of ``by_moment`` holds, since near the full width little is lost with
    its weakest axes. What documents have in common is left out of the learning and becomes one component, a step
    before the end of the head, where cuts have room for it. So all other components lie around zero, and their signs
    tell something where vectors become bits.

    Returns:
        float32 (D, D).
    """
    learned_DK, common_D1, weak_DR = _start(rows_ND)
    turned_NK = torch.cat([part_ND @ learned_DK for part_ND in torch.split(rows_ND, _ROWS)])
    before = _before_common(learned_DK.shape[1])
    with one_thread_each():  # steps are many and small: threads would wait for each other longer than they work
        rotation_KK = _learn(torch.nn.functional.normalize(turned_NK), progress)
        rotation_KK = rotation_KK @ _for_signs(turned_NK, rotation_KK, before)
    learned_DK = learned_DK @ rotation_KK
    return torch.cat([learned_DK[:, :before], common_D1, learned_DK[:, before:], weak_DR], dim=1).contiguous()


def _before_common(learned: int) -> int:
    """How many learned components come before the common one, which ends a step: the last but one of the head."""
    return learned // _STEP * _STEP - 1 if learned >= _STEP else learned


def _start(rows_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The axes that are learned, strongest first: (D, K); that of what is common: (D, 1); and the weak ones: (D, R)."""
    moment_DD = _moment(rows_ND)
    axes_DD = _axes(moment_DD).double()
    head_DH = axes_DD[:, : max(min(int(_HEAD_SHARE * len(axes_DD)), _HEAD), 2)]
    common_H = torch.nn.functional.normalize(head_DH.T @ rows_ND.mean(dim=0, dtype=torch.float64), dim=0)
    common_HH = torch.outer(common_H, common_H)
    without_HH = torch.eye(len(common_H), dtype=torch.float64) - common_HH
    moment_HH = head_DH.T @ moment_DD @ head_DH
    # What is common is taken out, and made the weakest of all by a strength below nothing.
    inner_HH = _axes(without_HH @ moment_HH @ without_HH - moment_HH.trace() * common_HH).double()
    turned_DD = torch.cat([head_DH @ inner_HH, axes_DD[:, len(common_H) :]], dim=1).float()
    learned_DK, common_D1, weak_DR = turned_DD.tensor_split((len(common_H) - 1, len(common_H)), dim=1)
    return learned_DK, common_D1, weak_DR


def _for_signs(rows_NK: Tensor, rotation_KK: Tensor, before: int) -> Tensor:
    """A rotation within each step of components, after which signs say more: (K, K). One more component comes behind
    the first ``before``, and the steps are those of all of them.

    Vectors are cut between steps, so that no cosine of a cut vector changes; bits do, since they are signs. Rows are
    brought near to the corners of a cube, by turns: the signs for a rotation, then the rotation for the signs. Source:
    iterative quantization (Gong and Lazebnik, 2011).
    """
    draw = torch.Generator().manual_seed(0)
    turned_NK = rows_NK[torch.randperm(len(rows_NK), generator=draw)[:_SIGN_ROWS]] @ rotation_KK
    blocks = []
    parts = [
        part_NS for side in turned_NK.tensor_split((before,), dim=1) for part_NS in torch.split(side, _STEP, dim=1)
    ]
    for part_NS in parts:
        turn_SS, _ = torch.linalg.qr(torch.randn(part_NS.shape[1], part_NS.shape[1], generator=draw))
        for _ in range(_SIGN_ROUNDS):
            left_SS, _, right_SS = torch.linalg.svd(part_NS.T @ (part_NS @ turn_SS).sign())
            turn_SS = left_SS @ right_SS
        blocks.append(turn_SS)
    turn_KK: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return turn_KK


def half_whitened(rows_NK: Tensor) -> Tensor:
    """Rows along the axes of their second moment, each divided by the root of its strength, scaled to length one.

    Returns:
        float32 (N, K).
    """
    axes_KK = by_moment(rows_NK)
    turned_NK = rows_NK @ axes_KK
    strengths_K = turned_NK.square().mean(dim=0).sqrt()
    return torch.nn.functional.normalize(turned_NK / strengths_K.clamp_min(_WEAKEST * strengths_K.max()).sqrt())


def _learn(rows_NK: Tensor, progress: Progress) -> Tensor:
    count, learned = rows_NK.shape
    dims = {dim: weight for dim, weight in _KEPT.items() if dim < learned} or {max(learned // 2, 1): 1.0}
    wanted_NK = half_whitened(rows_NK)
    draw = torch.Generator().manual_seed(0)
    rotation_KK = torch.eye(learned, requires_grad=True)
    sharpness = torch.full((len(dims),), math.log(1 / _SOFT), requires_grad=True)
    optimizer = torch.optim.Adam([{"params": [rotation_KK], "lr": _RATE}, {"params": [sharpness], "lr": _SHARPEN}])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    for step in range(_STEPS):
        drawn_B = torch.randperm(count, generator=draw)[:_BATCH]
        loss = _loss(wanted_NK[drawn_B], rows_NK[drawn_B] @ rotation_KK, dims, sharpness.exp())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            rotation_KK.grad = _along(rotation_KK, rotation_KK.grad)
            optimizer.step()
            schedule.step()
            rotation_KK.copy_(_orthogonal(rotation_KK, 2))
        progress("learning", step + 1, _STEPS)
    return _orthogonal(rotation_KK.detach().double(), 8).float()


def _loss(wanted_BK: Tensor, turned_BK: Tensor, dims: Mapping[int, float], sharpness: Tensor) -> Tensor:
    """How far the neighbours after each cut are from the wanted ones."""
    others_BB = torch.eye(len(wanted_BK)) * -_FAR  # a document is no neighbour of itself
    wanted_BB = (wanted_BK @ wanted_BK.T / _SOFT + others_BB).softmax(dim=1)
    loss = turned_BK.new_zeros(())
    for (dim, weight), sharp in zip(dims.items(), sharpness, strict=True):
        cut_Bd = torch.nn.functional.normalize(turned_BK[:, :dim])
        found_BB = (cut_Bd @ cut_Bd.T * sharp + others_BB).log_softmax(dim=1)
        loss = loss - weight * (wanted_BB * found_BB).sum(dim=1).mean()
    return loss


def _along(rotation_KK: Tensor, gradient_KK: Tensor | None) -> Tensor:
    """The part of a gradient that turns: what would stretch is taken out."""
    assert gradient_KK is not None, "the loss was followed back"
    moved_KK = rotation_KK.T @ gradient_KK
    return gradient_KK - rotation_KK @ (moved_KK + moved_KK.T) / 2


def _orthogonal(near_KK: Tensor, rounds: int) -> Tensor:
    """The orthogonal matrix beside one that is almost so."""
    for _ in range(rounds):
        near_KK = 1.5 * near_KK - 0.5 * near_KK @ (near_KK.T @ near_KK)
    return near_KK


def _moment(rows_ND: Tensor) -> Tensor:
    """The mean of x x^T in float64, from parts, so that rows may lie in a file."""
    width = rows_ND.shape[1]
    sum_DD = torch.zeros(width, width, dtype=torch.float64)
    for part_ND in torch.split(rows_ND, _ROWS):
        sum_DD += (part_ND.T @ part_ND).double()
    return sum_DD / len(rows_ND)


def _axes(moment_DD: Tensor) -> Tensor:
    _, axes_DD = torch.linalg.eigh(moment_DD)
    axes_DD = axes_DD.flip(1)
    peaks_D = axes_DD.gather(0, axes_DD.abs().argmax(dim=0, keepdim=True))[0]
    turned_DD: Tensor = axes_DD * torch.where(peaks_D < 0, -1.0, 1.0)
    return turned_DD.float().contiguous()


METHODS: Final[Mapping[str, Rotate]] = MappingProxyType(
    {"svd": by_moment, "spread": by_spread, "neighbours": by_neighbours}
)
"""Name -> how it is fitted; the plainest first, which wins where two are equal."""

"""Prefixes: which texts of a batch begin with the same tokens, so that these need to be computed only once.

Instructions and reranking prompts repeat in front of many texts. Each text takes at most one shared prefix and keeps at
least its last token for itself. It knows token ids; it knows no devices, no models and no queue.

The texts are grouped by their first tokens, and each group again by the tokens behind what it has in common, so that a
tree of ever longer prefixes arises. From its leaves upward every node is given to its texts as their one prefix, or
left to the nodes below it, whichever saves more tokens. Groups form by hashes, but only tokens that were compared are
shared: a collision can cost some sharing, never a result.

Legend: T tokens in the batch, B texts, C = B + 1 boundaries, P prefixes, M members of the groups of one level,
N texts that may form groups, G groups of one level, H groups of the level below, F groups still compared, W tokens
compared at once, L tokens hashed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from anydim.types import Int32Array, Prefixes

LEAST_LENGTH: Final = 16  # tokens; a shorter prefix is not looked for
LEAST_SAVING: Final = 0.05  # of the batch's tokens
_STEP: Final = 4  # tokens that a longer prefix has beyond a shorter one at least
_LEVELS: Final = 8
_WIDTH: Final = 32  # tokens compared at first; doubled while all agree
_WIDEST: Final = 512
_MULTIPLIER: Final = 0x9E3779B97F4A7C15  # the golden ratio in 64 bits (Knuth, TAOCP 3, 6.4)

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Level:
    """Groups of texts with a common prefix; the members of a group lie side by side.

    Attributes:
        text_M: the members' places in the batch.
        group_M: the group of each.
        depth_G: tokens that each group has in common.
        parent_G: the group of the level above that holds it.
    """

    text_M: Ints
    group_M: Ints
    depth_G: Ints
    parent_G: Ints


def find_prefixes(ids_T: Int32Array, cu_seqlens_C: Int32Array) -> Prefixes | None:
    """The prefixes to share.

    Args:
        ids_T: int32, the token ids of all texts, one text after another.
        cu_seqlens_C: int32, where each text starts, and the end of the last.

    Returns:
        Prefixes of at least ``LEAST_LENGTH`` tokens, each of at least two texts; None where sharing them would save
        less than ``LEAST_SAVING`` of the tokens.
    """
    starts_B = cu_seqlens_C[:-1].astype(np.int64)
    room_B = np.diff(cu_seqlens_C).astype(np.int64) - 1
    levels = _levels(ids_T, starts_B, room_B)
    if not levels:
        return None
    prefix_B, lengths_P = _number(_choose(levels, len(starts_B)), levels)
    members_P = np.bincount(prefix_B[prefix_B >= 0], minlength=len(lengths_P))
    if ((members_P - 1) * lengths_P).sum() < LEAST_SAVING * len(ids_T):
        return None
    return Prefixes(lengths_P.astype(np.int32), prefix_B.astype(np.int32))


def _levels(ids_T: Int32Array, starts_B: Ints, room_B: Ints) -> list[_Level]:
    """The tree of prefixes, the shortest first."""
    text_N = np.flatnonzero(room_B >= LEAST_LENGTH)
    key_N = _hash(ids_T, starts_B[text_N], LEAST_LENGTH)
    sorted_N = np.sort(key_N)
    if not (sorted_N[1:] == sorted_N[:-1]).any():  # the usual end
        return []
    above_N = np.zeros(len(text_N), np.int64)
    depth_G = np.zeros(1, np.int64)
    levels: list[_Level] = []
    while len(levels) < _LEVELS:
        place_M, group_M, first_G = _group(above_N, key_N)
        if not len(place_M):
            break
        text_M, parent_G = text_N[place_M], above_N[place_M][first_G]
        depth_G = _extend(ids_T, starts_B[text_M], room_B[text_M], group_M, depth_G[parent_G])
        levels.append(_Level(text_M, group_M, depth_G, parent_G))
        depth_M = depth_G[group_M]
        goes_on_M = room_B[text_M] >= depth_M + _STEP
        text_N, above_N = text_M[goes_on_M], group_M[goes_on_M]
        key_N = _hash(ids_T, starts_B[text_N] + depth_M[goes_on_M], _STEP)
    return levels


def _hash(ids_T: Int32Array, starts_N: Ints, length: int) -> NDArray[np.uint64]:
    """A hash of ``length`` tokens from each start."""
    ids_NL = ids_T[starts_N[:, None] + np.arange(length)].astype(np.uint64)
    weights_L = np.cumprod(np.full(length, _MULTIPLIER, np.uint64), dtype=np.uint64)
    return np.asarray(ids_NL @ weights_L, np.uint64)


def _group(above_N: Ints, key_N: NDArray[np.uint64]) -> tuple[Ints, Ints, Ints]:
    """Those equal in both to some other: their places, the group of each, and where each group begins among them."""
    order_N = np.lexsort((key_N, above_N))
    key_N, above_N = key_N[order_N], above_N[order_N]
    same_N = np.zeros(len(order_N) + 1, bool)  # as the one before
    same_N[1:-1] = (key_N[1:] == key_N[:-1]) & (above_N[1:] == above_N[:-1])
    kept_N = same_N[:-1] | same_N[1:]
    opens_M = ~same_N[:-1][kept_N]
    return order_N[kept_N], np.cumsum(opens_M) - 1, np.flatnonzero(opens_M)


def _extend(ids_T: Int32Array, starts_M: Ints, room_M: Ints, group_M: Ints, depth_G: Ints) -> Ints:
    """How many tokens each group has in common, when it is known to have ``depth_G``; 0 where these are too few."""
    depth_G = depth_G.copy()
    width = _WIDTH
    while len(group_M):
        depth_M = depth_G[group_M]
        first_F = np.flatnonzero(np.diff(group_M, prepend=-1))
        sizes_F = np.diff(first_F, append=len(group_M))
        at_M = starts_M + depth_M
        run_M = _agreement(ids_T, at_M, np.repeat(at_M[first_F], sizes_F), width)
        run_F = np.minimum.reduceat(np.minimum(run_M, room_M - depth_M), first_F)
        depth_G[group_M[first_F]] += run_F
        more_M = np.repeat(run_F == width, sizes_F)
        starts_M, room_M, group_M = starts_M[more_M], room_M[more_M], group_M[more_M]
        width = min(2 * width, _WIDEST)
    depth_G[depth_G < LEAST_LENGTH] = 0  # the work of a collision
    return depth_G


def _agreement(ids_T: Int32Array, at_M: Ints, other_M: Ints, width: int) -> Ints:
    """How many tokens from one place equal those from another, at most ``width``."""
    column_W = np.arange(width)
    own_MW = ids_T.take(at_M[:, None] + column_W, mode="clip")
    other_MW = ids_T.take(other_M[:, None] + column_W, mode="clip")
    differs_MW = np.ones((len(at_M), width + 1), bool)
    np.not_equal(own_MW, other_MW, out=differs_MW[:, :-1])
    return np.asarray(differs_MW.argmax(axis=1), np.int64)


def _choose(levels: Sequence[_Level], n_texts: int) -> Ints:
    """The group that each text takes its prefix from, counted through all levels; -1 for none."""
    chosen_B = np.full(n_texts, -1)
    apart_B = np.zeros(n_texts, bool)  # in a group of the level below that saves more by itself
    offset = sum(len(level.depth_G) for level in levels)
    below: tuple[_Level, Ints, Ints] | None = None
    for level in reversed(levels):
        offset -= len(level.depth_G)
        count_G = np.bincount(level.group_M)
        inner_G, joined_G = np.zeros_like(count_G), (count_G - 1) * level.depth_G
        if below is not None:
            lower, count_H, best_H = below
            extra_H = best_H - count_H * level.depth_G[lower.parent_G]
            np.add.at(inner_G, lower.parent_G, best_H)
            np.add.at(joined_G, lower.parent_G, np.maximum(extra_H, 0))
            apart_B[lower.text_M] = (extra_H > 0)[lower.group_M]
        joins_G = joined_G > inner_G
        free_M = ~apart_B[level.text_M] | (chosen_B[level.text_M] < 0)
        goes_M = joins_G[level.group_M] & free_M
        chosen_B[level.text_M[goes_M]] = offset + level.group_M[goes_M]
        below = level, count_G, np.maximum(joined_G, inner_G)
    return chosen_B


def _number(chosen_B: Ints, levels: Sequence[_Level]) -> tuple[Ints, Ints]:
    """The groups that two texts at least have chosen, numbered from 0: the number of each text, and their lengths."""
    group_P, of_B, count_P = np.unique(chosen_B, return_inverse=True, return_counts=True)
    kept_P = (group_P >= 0) & (count_P > 1)
    number_P = np.where(kept_P, np.cumsum(kept_P) - 1, -1)
    return number_P[of_B], np.concatenate([level.depth_G for level in levels])[group_P[kept_P]]

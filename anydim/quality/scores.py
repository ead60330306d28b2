"""Scores: how alike queries and a block of documents are, at several dimensions in turn.

Where a dimension's score can be made from the one before by adding the components between, it is: a sweep over all
dimensions then costs one product at full width. So it is with float32, whose lengths are summed up beside the products,
and with bits, which do not depend on lengths. float16 and int8 round each dimension anew by its own length or peak, and
are made anew. It knows rows and forms; it knows no ranks.

Legend: Q queries, B documents of a block, D full dimension, d dimension of a form, S components between two dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor

from anydim.quality.forms import Form, in_form
from anydim.types import OutputDtype

Score = Callable[[Tensor], Iterator[Tensor]]
"""Takes full rows (B, D); gives for each form in turn float32 (Q, B), to be used before the next is asked for."""

_LEAST: Final = 1e-24  # a row of zeros must not divide by zero


def scorer(queries_QD: Tensor, forms: Sequence[Form]) -> Score:
    """Scores of these queries; of each query in the order of its cosines.

    Args:
        queries_QD: full rows, rotated where the forms are fitted.
        forms: one output type, growing dimensions.
    """
    dims = [form.dim for form in forms]
    assert dims == sorted(set(dims)) and len({form.dtype for form in forms}) == 1, "forms of one type, growing"
    if forms[0].dtype is OutputDtype.FLOAT32:
        return partial(_growing, queries_QD.float(), dims)
    if forms[0].dtype in (OutputDtype.BINARY, OutputDtype.UBINARY):
        return partial(_growing_bits, _signs(queries_QD), dims)
    return partial(_anew, [in_form(queries_QD, form) for form in forms], forms)


def _growing(queries_QD: Tensor, dims: Sequence[int], documents_BD: Tensor) -> Iterator[Tensor]:
    """Products so far, divided by the documents' lengths so far: a query's own length does not change its order."""
    sums_QB = queries_QD.new_zeros((len(queries_QD), len(documents_BD)))
    squares_B = queries_QD.new_zeros(len(documents_BD))
    scores_QB = torch.empty_like(sums_QB)
    for start, stop in pairwise((0, *dims)):
        part_BS = documents_BD[:, start:stop].float()
        sums_QB.addmm_(queries_QD[:, start:stop], part_BS.T)
        squares_B += part_BS.square().sum(dim=1)
        yield torch.mul(sums_QB, squares_B.clamp_min(_LEAST).rsqrt(), out=scores_QB)


def _growing_bits(signs_QD: Tensor, dims: Sequence[int], documents_BD: Tensor) -> Iterator[Tensor]:
    """How many bits agree less how many differ: whole numbers, exact in float32."""
    documents_BD = _signs(documents_BD[:, : dims[-1]])
    sums_QB = signs_QD.new_zeros((len(signs_QD), len(documents_BD)))
    for start, stop in pairwise((0, *dims)):
        sums_QB.addmm_(signs_QD[:, start:stop], documents_BD[:, start:stop].T)
        yield sums_QB.clone()  # who takes it may write to it


def _anew(asked: Sequence[Tensor], forms: Sequence[Form], documents_BD: Tensor) -> Iterator[Tensor]:
    for queries_Qd, form in zip(asked, forms, strict=True):
        yield queries_Qd @ in_form(documents_BD, form).T


def _signs(rows_BD: Tensor) -> Tensor:
    """What packed bits say: 1 where a component is positive, else -1."""
    return torch.where(rows_BD > 0, 1.0, -1.0)

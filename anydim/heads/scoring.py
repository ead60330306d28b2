"""Scoring: pooled states -> scores of a reranker or classifier. Plain functions in float32.

They know nothing of models or requests. Source: transformers, the ForSequenceClassification heads; the Qwen3-Reranker
model card for the answers yes and no.

Legend: B texts, D width, L labels, E = L + 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def answer_row(yes_D: Tensor, no_D: Tensor) -> Tensor:
    """The one row (1, D), float32, whose product with a state is the logit of yes less that of no.

    softmax([z_no, z_yes])[yes] = sigmoid(z_yes - z_no), so that the other rows of the vocabulary are not needed.
    """
    return (yes_D.float() - no_D.float())[None]


def dense_tanh(pooled_BD: Tensor, weight_DD: Tensor, bias_D: Tensor) -> Tensor:
    """The layer before the scores of BERT (its pooler) and of RoBERTa (its classifier's dense layer): (B, D)."""
    return torch.tanh(functional.linear(pooled_BD, weight_DD, bias_D))


def logits(pooled_BD: Tensor, weight_LD: Tensor, bias_L: Tensor | None = None) -> Tensor:
    """Raw scores: float32 (B, L)."""
    return functional.linear(pooled_BD, weight_LD, bias_L)


def squash(logits_BL: Tensor, wanted_B: Tensor) -> Tensor:
    """Put the rows where ``wanted_B`` between 0 and 1: a sigmoid of one label, a softmax of several."""
    squashed_BL = logits_BL.sigmoid() if logits_BL.shape[1] == 1 else logits_BL.softmax(dim=1)
    return torch.where(wanted_B[:, None], squashed_BL, logits_BL)


def finish(logits_BL: Tensor, wanted_B: Tensor) -> Tensor:
    """``squash``, as one block for one copy to the host.

    Returns:
        float32 (B, E): the scores, and behind each row 1 where all of it is finite, else 0.
    """
    finite_B = torch.isfinite(logits_BL).all(dim=1)
    return torch.cat([squash(logits_BL, wanted_B), finite_B[:, None].float()], dim=1)

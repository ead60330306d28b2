"""ScoreHead: the parameters behind an encoder that scores, in float32, filled from the model's folder.

It knows which tensors each architecture keeps where; the arithmetic is in heads/scoring.py. It knows no requests.

Legend: B texts, D width, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor, nn

from anydim.heads.scoring import answer_row, dense_tanh, logits
from anydim.models import weights
from anydim.models.card import Family, ModelCard
from anydim.models.scorer import HeadKind, Scorer
from anydim.models.weights import Part, stacked

_HEAD: Final = "lm_head.weight"
_EMBEDDING: Final = "embed_tokens.weight"


class ScoreHead(nn.Module):
    """Pooled states to raw scores."""

    def __init__(self, card: ModelCard, scorer: Scorer, device: torch.device) -> None:
        """Allocate the parameters, uninitialised, on ``device``."""
        super().__init__()
        self._family = card.family

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=torch.float32), requires_grad=False)

        is_dense = scorer.head is HeadKind.DENSE
        self.dense_weight = parameter(card.width, card.width) if is_dense else None
        self.dense_bias = parameter(card.width) if is_dense else None
        self.score_weight = parameter(len(scorer.labels), card.width)
        self.score_bias = parameter(len(scorer.labels)) if is_dense else None

    def sources(self) -> dict[str, tuple[Part, ...]]:
        """Parameter name -> checkpoint tensor."""
        tensors = _TENSORS[self._family]
        return {name: stacked(parameter, [tensors[name]]) for name, parameter in self.named_parameters()}

    def forward(self, pooled_BD: Tensor) -> Tensor:
        """Raw scores: float32 (B, L)."""
        states_BD = pooled_BD.float()
        if self.dense_weight is not None and self.dense_bias is not None:
            states_BD = dense_tanh(states_BD, self.dense_weight, self.dense_bias)
        return logits(states_BD, self.score_weight, self.score_bias)


_TENSORS: Final[Mapping[Family, Mapping[str, str]]] = MappingProxyType(
    {
        Family.QWEN3: MappingProxyType({"score_weight": "score.weight"}),
        Family.BERT: MappingProxyType(
            {
                "dense_weight": "pooler.dense.weight",
                "dense_bias": "pooler.dense.bias",
                "score_weight": "classifier.weight",
                "score_bias": "classifier.bias",
            }
        ),
        Family.ROBERTA: MappingProxyType(
            {
                "dense_weight": "classifier.dense.weight",
                "dense_bias": "classifier.dense.bias",
                "score_weight": "classifier.out_proj.weight",
                "score_bias": "classifier.out_proj.bias",
            }
        ),
    }
)


def load_score_head(card: ModelCard, load_format: str, device: torch.device) -> ScoreHead:
    """The head of a model that scores, from its folder or with random weights.

    Raises:
        ModelError: a tensor is missing or of another shape.
    """
    assert card.scorer is not None, "only models that score have a score head"
    head = ScoreHead(card, card.scorer, device)
    if load_format == "dummy":
        weights.fill_random(head)
    elif card.scorer.answers is None:
        weights.load(head, card.folder, lambda *_: None)
    else:
        yes_D, no_D = weights.read_rows(card.folder, _vocabulary_tensor(card), card.scorer.answers)
        head.score_weight.copy_(answer_row(yes_D, no_D))
    return head


def _vocabulary_tensor(card: ModelCard) -> str:
    """The matrix behind the vocabulary's logits: the embedding where config.json ties the two, as transformers does."""
    return _EMBEDDING if card.config.get("tie_word_embeddings", False) else _HEAD

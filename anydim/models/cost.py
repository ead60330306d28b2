"""Cost: what a token of a model costs beside one of another, from the shapes of its layers. Imports no torch.

The weights of a layer's products are read and multiplied once a token; attention, which grows with a text, is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from anydim.models.card import Family, ModelCard


def costs(cards: Sequence[ModelCard]) -> list[float]:
    """What a token of each of several models costs, in tokens of the first one."""
    each = [token_cost(card) for card in cards]
    return [one / each[0] for one in each]


def token_cost(card: ModelCard) -> int:
    """Multiplications of a token in the products of all layers."""
    config = card.config
    heads = int(config.get("num_attention_heads") or 1)
    head_dim = int(config.get("head_dim") or card.width // heads)
    kv_heads = int(config.get("num_key_value_heads") or heads)
    inner = int(config.get("intermediate_size") or 4 * card.width)
    attention = card.width * head_dim * (2 * heads + 2 * kv_heads)
    feed_forward = (3 if card.family is Family.QWEN3 else 2) * card.width * inner
    return int(config.get("num_hidden_layers") or 1) * (attention + feed_forward)

"""Shards: one rank's part of a model, for tensor parallelism. The model's own file does not know of it.

Query, key and value are cut by whole key-value heads, gate and up by columns of the feed-forward, and so each rank
computes its heads and columns alone. The products behind them (o and down) are cut along what they sum over: each rank
has a part of the sum, and ``Shard.total`` adds the parts of all. The embedding and the norms are whole on every rank,
and so is the hidden state after each sum. It knows layers and slices; it knows no processes.

Source: Shoeybi et al. 2019, arXiv 1909.08053 (Megatron-LM), section 3.

Shapes: D hidden width, I channels in, O channels out, T tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from anydim.errors import ConfigError
from anydim.kernels import Ops, Scaled
from anydim.models.card import Family, ModelCard
from anydim.models.feed import Feed, Operand, Quantizable
from anydim.models.weights import Cut, Loadable, Part

_ROWS, _COLUMNS = 0, 1

_AXES: Final[Mapping[Family, Mapping[str, int]]] = MappingProxyType(
    {
        Family.QWEN3: MappingProxyType(
            {
                "qkv_proj": _ROWS,
                "qkv_bias": _ROWS,
                "gate_up_proj": _ROWS,
                "o_proj": _COLUMNS,
                "down_proj": _COLUMNS,
            }
        )
    }
)
"""The axis along which each parameter of a layer is cut; what is not named is whole on every rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One rank of several.

    Attributes:
        rank: which one, from 0.
        count: how many there are.
        total: replaces a tensor by the sum over all ranks, in place.
    """

    rank: int
    count: int
    total: Callable[[Tensor], None]


def shard_card(card: ModelCard, count: int) -> ModelCard:
    """The card of one rank's part: heads and feed-forward columns divided by ``count``.

    Raises:
        ConfigError: the model cannot be divided so.
    """
    if card.family not in _AXES:
        raise ConfigError(
            f"--tp {count} (tp): {card.name} is of the family {card.family}, which is small enough for one GPU; tensor "
            f"parallelism is for {', '.join(_AXES)}. For throughput take --dp {count}"
        )
    sizes = _sizes(card)
    for name, size in sizes.items():
        if size % count:
            most = math.gcd(*sizes.values())
            fitting = ", ".join(str(number) for number in range(1, most + 1) if most % number == 0)
            raise ConfigError(
                f"--tp {count} (tp): {card.name} has {name} {size}, which {count} ranks cannot share equally; possible "
                f"are {fitting}"
            )
    heads = sizes["num_attention_heads"]
    head_dim = int(card.config.get("head_dim") or card.width // heads)
    parts = {name: size // count for name, size in sizes.items()}
    return replace(card, config=MappingProxyType({**card.config, **parts, "head_dim": head_dim}))


def _sizes(card: ModelCard) -> dict[str, int]:
    """What is divided."""
    heads = int(card.config["num_attention_heads"])
    return {
        "num_attention_heads": heads,
        "num_key_value_heads": int(card.config.get("num_key_value_heads") or heads),
        "intermediate_size": int(card.config["intermediate_size"]),
    }


class Slices:
    """A model of one rank's sizes, as what loads weights sees it: where each parameter's slice comes from."""

    def __init__(self, model: Loadable, family: Family, shard: Shard) -> None:
        """Wrap a model that was made from ``shard_card``."""
        self._model = model
        self._axes = _AXES[family]
        self._shard = shard

    def sources(self) -> Mapping[str, tuple[Part, ...]]:
        """Parameter name -> slices of checkpoint tensors, stacked along the first axis."""
        return {name: tuple(self._cut(name, part) for part in parts) for name, parts in self._model.sources().items()}

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """As torch.nn.Module does."""
        return self._model.named_parameters()

    def get_submodule(self, target: str) -> nn.Module:
        """As torch.nn.Module does."""
        return self._model.get_submodule(target)

    def _cut(self, name: str, part: Part) -> Part:
        axis = self._axes.get(name.rpartition(".")[2])
        return part if axis is None else part._replace(cut=Cut(axis, self._shard.rank, self._shard.count))


def join_products(model: Quantizable, family: Family, shard: Shard) -> None:
    """Let the products whose sums are divided add up over all ranks; their weights must be in place.

    Where there is a bias it is added once, behind the sum.
    """
    axes = _AXES[family]
    divided = frozenset(id(getattr(module, name)) for module, name in model.product_weights() if axes[name] == _COLUMNS)

    def around(feed: Feed) -> Feed:
        def product(x: Operand, weight: Operand, bias_O: Tensor | None) -> Tensor:
            if id(weight) not in divided:
                return feed.product(x, weight, bias_O)
            out_TO = feed.product(x, weight, None)
            shard.total(out_TO)
            return out_TO if bias_O is None else out_TO.add_(bias_O)

        return replace(feed, product=product, around=around)

    model.feed = around(model.feed)


def joined_ops(ops: Ops, shard: Shard) -> Ops:
    """The same for the fused steps of few tokens, which add a product to the stream by themselves."""
    return ops if ops.fused is None else replace(ops, fused=cast(Any, _JoinedSteps(ops.fused, shard.total)))


class _JoinedSteps:
    """Fused steps whose added product is the sum over all ranks."""

    def __init__(self, steps: Any, total: Callable[[Tensor], None]) -> None:
        self._steps = steps
        self._total = total

    def __getattr__(self, name: str) -> Any:
        return getattr(self._steps, name)

    def linear_add_(self, x_TI: Tensor, weight_DI: Tensor | Scaled, residual_TD: Tensor) -> None:
        part_TD = torch.zeros_like(residual_TD)
        self._steps.linear_add_(x_TI, weight_DI, part_TD)
        self._total(part_TD)
        residual_TD.add_(part_TD)

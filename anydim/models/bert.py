"""BERT, RoBERTa and XLM-RoBERTa: the packed forward of bidirectional encoders.

It knows the architecture (learned positions, post-LayerNorm) and nothing of pooling, dimensions or requests. RoBERTa
differs in where its positions start. Source: transformers, models/bert and models/xlm_roberta.

Legend: T tokens in the batch, R rows asked for, D hidden width, C channels of the fused qkv block, F feed-forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, gelu, layer_norm, relu, silu

from anydim.errors import ModelError
from anydim.kernels import Ops
from anydim.models.card import Family
from anydim.models.feed import Product, plain_feed
from anydim.models.packed import Packed
from anydim.models.weights import Part, stacked

_ACTIVATIONS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = MappingProxyType(
    {
        "gelu": gelu,
        "gelu_new": partial(gelu, approximate="tanh"),
        "gelu_pytorch_tanh": partial(gelu, approximate="tanh"),
        "relu": relu,
        "silu": silu,
    }
)


class Bert(nn.Module):
    """An encoder without a head: token ids to last-layer hidden states."""

    def __init__(
        self,
        config: Mapping[str, Any],
        family: Family,
        ops: Ops,
        device: torch.device,
        dtype: torch.dtype,
        products: torch.device | None = None,
        separator: int | None = None,
    ) -> None:
        """Allocate the parameters, uninitialised, on ``device``; the weights of products on ``products`` where given.

        Args:
            config: config.json.
            family: the architecture.
            ops: the operations.
            device: where the parameters lie.
            dtype: their precision.
            products: where the weights of products lie, where that is another device.
            separator: the token behind which the second of two texts starts, which has a type of its own; None where
                all tokens have the first type.

        Raises:
            ModelError: the config asks for something that this forward does not do.
        """
        super().__init__()
        _check(config)
        self._ops = ops
        self.feed = plain_feed(ops)
        self._heads = int(config["num_attention_heads"])
        width, inner = int(config["hidden_size"]), int(config["intermediate_size"])
        self._scale = (width // self._heads) ** -0.5
        self._eps = float(config.get("layer_norm_eps", 1e-12))
        self._activation = _ACTIVATIONS[config.get("hidden_act", "gelu")]
        self._pad = int(config.get("pad_token_id") or 0) if family is Family.ROBERTA else None
        self._separator = separator

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=device, dtype=dtype), requires_grad=False)

        def product(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, device=products or device, dtype=dtype), requires_grad=False)

        self.word_embeddings = parameter(int(config["vocab_size"]), width)
        self.position_embeddings = parameter(int(config["max_position_embeddings"]), width)
        self.token_type_embeddings = parameter(int(config.get("type_vocab_size", 2)), width)
        self.norm_weight = parameter(width)
        self.norm_bias = parameter(width)
        self._layers = [_Layer(parameter, product, width, inner) for _ in range(int(config["num_hidden_layers"]))]
        self.layers = nn.ModuleList(self._layers)

    @property
    def head_counts(self) -> tuple[int, int]:
        """Query heads and key-value heads: the same."""
        return self._heads, self._heads

    @property
    def takes_prefixes(self) -> bool:
        """Every token sees the whole text, so that no two texts have a state in common."""
        return False

    @property
    def takes_dense(self) -> bool:
        """A token needs the keys behind it, so that no part of a text stands alone."""
        return False

    def sources(self) -> dict[str, tuple[Part, ...]]:
        """Parameter name -> checkpoint tensors, stacked along the first axis."""
        sources = {name: stacked(getattr(self, name), [f"embeddings.{tensor}"]) for name, tensor in _EMBEDDINGS.items()}
        for index, layer in enumerate(self._layers):
            for name, parameter in layer.named_parameters():
                stem, kind = name.rsplit("_", 1)
                tensors = [f"encoder.layer.{index}.{part}.{kind}" for part in _PARTS[stem]]
                sources[f"layers.{index}.{name}"] = stacked(parameter, tensors)
        return sources

    def product_weights(self) -> Iterator[tuple[nn.Module, str]]:
        """The module and the name of the weight of each product."""
        for layer in self._layers:
            yield from ((layer, f"{name}_weight") for name in ("qkv", "out", "up", "down"))

    def products(self) -> list[Product]:
        """Each different product of a forward, those of the last layer's parts included."""
        layer, width = self._layers[-1], len(self._layers[-1].out_bias)
        parts = [slice(None), slice(width), slice(width, None)]
        of_qkv = [(layer.qkv_weight[part], layer.qkv_bias[part]) for part in parts]
        up, down = (layer.up_weight, layer.up_bias), (layer.down_weight, layer.down_bias)
        return self.feed.products([*of_qkv, (layer.out_weight, layer.out_bias), up, down])

    def forward(self, batch: Packed, rows_R: Tensor | None = None) -> Tensor:
        """Run the batch.

        Args:
            batch: texts one after another.
            rows_R: int (R,), one row of each text, where only these are wanted; all T rows otherwise.

        Returns:
            Hidden states, (R, D) or (T, D), in the model's dtype.
        """
        hidden_TD = self._embed(batch)
        last = len(self._layers) - 1
        for index, layer in enumerate(self._layers):
            if index == last and rows_R is not None:
                return self._finish(layer, self._attend_rows(layer, hidden_TD, batch, rows_R), hidden_TD[rows_R])
            qkv_TC = self.feed.product(hidden_TD, layer.qkv_weight, layer.qkv_bias)
            attended_TD = self._ops.attend(qkv_TC, batch.plan, self._heads, self._heads, self._scale, False)
            hidden_TD = self._finish(layer, attended_TD, hidden_TD)
        return hidden_TD

    def _attend_rows(self, layer: _Layer, hidden_TD: Tensor, batch: Packed, rows_R: Tensor) -> Tensor:
        """The last layer: keys and values of every token, queries of the wanted rows alone."""
        width = hidden_TD.shape[1]
        q_RD = self.feed.product(hidden_TD[rows_R], layer.qkv_weight[:width], layer.qkv_bias[:width])
        kv_TC = self.feed.product(hidden_TD, layer.qkv_weight[width:], layer.qkv_bias[width:])
        return self._ops.attend_rows(q_RD, kv_TC, batch.plan, self._heads, self._heads, self._scale)

    def _embed(self, batch: Packed) -> Tensor:
        hidden_TD = embedding(batch.ids_T, self.word_embeddings)
        hidden_TD = hidden_TD + embedding(self._positions(batch), self.position_embeddings)
        if self._separator is None:
            hidden_TD += self.token_type_embeddings[0]
        else:
            hidden_TD += embedding(self._types(batch, self._separator), self.token_type_embeddings)
        return self._norm(hidden_TD, self.norm_weight, self.norm_bias)

    def _positions(self, batch: Packed) -> Tensor:
        """Rows of the position table: int (T,). RoBERTa counts from behind the pad id, and skips pads in a text."""
        if self._pad is None:
            return batch.positions_T
        counts_T = (batch.ids_T != self._pad).long()
        return (_seen_before(counts_T, batch.positions_T) + counts_T) * counts_T + self._pad

    def _types(self, batch: Packed, separator: int) -> Tensor:
        """Rows of the type table: int (T,), 1 behind the first separator of each text."""
        return _seen_before((batch.ids_T == separator).long(), batch.positions_T).clamp(max=1)

    def _finish(self, layer: _Layer, attended_TD: Tensor, hidden_TD: Tensor) -> Tensor:
        """Everything behind the attention; row by row, so that any rows will do."""
        projected_TD = self.feed.product(attended_TD, layer.out_weight, layer.out_bias).add_(hidden_TD)
        hidden_TD = self._norm(projected_TD, layer.attention_norm_weight, layer.attention_norm_bias)
        inner_TF = self._up(hidden_TD, layer)
        projected_TD = self.feed.product(inner_TF, layer.down_weight, layer.down_bias).add_(hidden_TD)
        return self._norm(projected_TD, layer.output_norm_weight, layer.output_norm_bias)

    def _up(self, hidden_TD: Tensor, layer: _Layer) -> Tensor:
        if self._activation is gelu:  # the one that can be fused
            return self.feed.product_gelu(hidden_TD, layer.up_weight, layer.up_bias)
        return self._activation(self.feed.product(hidden_TD, layer.up_weight, layer.up_bias))

    def _norm(self, hidden_TD: Tensor, weight_D: Tensor, bias_D: Tensor) -> Tensor:
        return layer_norm(hidden_TD, weight_D.shape, weight_D, bias_D, self._eps)


def _seen_before(counts_T: Tensor, positions_T: Tensor) -> Tensor:
    """How many of the counted tokens come before each token in its own text: int (T,)."""
    before_T = counts_T.cumsum(0) - counts_T
    starts_T = torch.arange(len(before_T), device=before_T.device) - positions_T
    return before_T - before_T[starts_T]


class _Layer(nn.Module):
    """Parameters of one layer; query, key and value are fused."""

    def __init__(
        self, parameter: Callable[..., nn.Parameter], product: Callable[..., nn.Parameter], width: int, inner: int
    ) -> None:
        super().__init__()
        self.qkv_weight, self.qkv_bias = product(3 * width, width), parameter(3 * width)
        self.out_weight, self.out_bias = product(width, width), parameter(width)
        self.attention_norm_weight, self.attention_norm_bias = parameter(width), parameter(width)
        self.up_weight, self.up_bias = product(inner, width), parameter(inner)
        self.down_weight, self.down_bias = product(width, inner), parameter(width)
        self.output_norm_weight, self.output_norm_bias = parameter(width), parameter(width)


_EMBEDDINGS: Final = MappingProxyType(
    {
        "word_embeddings": "word_embeddings.weight",
        "position_embeddings": "position_embeddings.weight",
        "token_type_embeddings": "token_type_embeddings.weight",
        "norm_weight": "LayerNorm.weight",
        "norm_bias": "LayerNorm.bias",
    }
)
_PARTS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "qkv": ("attention.self.query", "attention.self.key", "attention.self.value"),
        "out": ("attention.output.dense",),
        "attention_norm": ("attention.output.LayerNorm",),
        "up": ("intermediate.dense",),
        "down": ("output.dense",),
        "output_norm": ("output.LayerNorm",),
    }
)


def _check(config: Mapping[str, Any]) -> None:
    activation = config.get("hidden_act", "gelu")
    if activation not in _ACTIVATIONS:
        raise ModelError(f"activation {activation!r} is not supported; supported are {', '.join(_ACTIVATIONS)}")
    kind = config.get("position_embedding_type") or "absolute"
    if kind != "absolute":
        raise ModelError(f"position embeddings of type {kind!r} are not supported; supported is 'absolute'")

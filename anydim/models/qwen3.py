"""Qwen3: the packed forward of Qwen3-Embedding, a causal decoder without its vocabulary head.

It knows the architecture (grouped heads, per-head RMSNorm before RoPE, SwiGLU) and nothing of pooling, dimensions or
requests. Rows that no head asks for do not leave the last layer. Source: transformers, models/qwen3.

Legend: T tokens in the batch, R rows asked for, D hidden width, C channels of the fused qkv block, F fused gate and
up columns or frequencies, P positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from anydim.errors import ModelError
from anydim.kernels import FEW_TOKENS, LEAST_HEAD_DIM, Ops, rope_tables
from anydim.models.feed import Operand, Product, plain_feed
from anydim.models.packed import Packed
from anydim.models.weights import Part, stacked

if TYPE_CHECKING:
    from anydim.kernels.fused_triton import FusedKernels


class Qwen3(nn.Module):
    """Qwen3 without a head: token ids to final-norm hidden states."""

    def __init__(
        self,
        config: Mapping[str, Any],
        ops: Ops,
        device: torch.device,
        dtype: torch.dtype,
        products: torch.device | None = None,
    ) -> None:
        """Allocate the parameters, uninitialised, on ``device``; the weights of products on ``products`` where given.

        Raises:
            ModelError: the config asks for something that this forward does not do.
        """
        super().__init__()
        _check(config)
        self._ops = ops
        self.feed = plain_feed(ops)
        self._heads = int(config["num_attention_heads"])
        self._kv_heads = int(config.get("num_key_value_heads") or self._heads)
        self._head_dim = int(config.get("head_dim") or config["hidden_size"] // self._heads)
        self._eps = float(config.get("rms_norm_eps", 1e-6))
        self._has_bias = bias = bool(config.get("attention_bias", False))
        width, inner = int(config["hidden_size"]), int(config["intermediate_size"])
        self.embed_tokens = _parameter(device, dtype, int(config["vocab_size"]), width)
        self._layers = [
            _Layer(width, inner, self._heads, self._kv_heads, self._head_dim, bias, device, dtype, products or device)
            for _ in range(int(config["num_hidden_layers"]))
        ]
        self.layers = nn.ModuleList(self._layers)
        self.norm = _parameter(device, dtype, width)
        positions = int(config["max_position_embeddings"])
        self._cos, self._sin = rope_tables(self._head_dim, _theta(config), positions, device)

    @property
    def head_counts(self) -> tuple[int, int]:
        """Query heads and key-value heads."""
        return self._heads, self._kv_heads

    @property
    def takes_prefixes(self) -> bool:
        """A token sees only what comes before it, so what begins several texts has the same states in all of them."""
        return self._ops.takes_prefixes

    @property
    def takes_dense(self) -> bool:
        """A token needs no key behind it, so that a text's first tokens stand alone."""
        return self._ops.attend_long is not None

    def sources(self) -> dict[str, tuple[Part, ...]]:
        """Parameter name -> checkpoint tensors, stacked along the first axis."""
        q_size, kv_size = self._heads * self._head_dim, self._kv_heads * self._head_dim
        rows = {"qkv_proj": (q_size, kv_size, kv_size), "qkv_bias": (q_size, kv_size, kv_size)}
        sources = {
            "embed_tokens": stacked(self.embed_tokens, ["embed_tokens.weight"]),
            "norm": stacked(self.norm, ["norm.weight"]),
        }
        for index, layer in enumerate(self._layers):
            for name, parameter in layer.named_parameters():
                tensors = [f"layers.{index}.{part}" for part in _PARTS[name]]
                sources[f"layers.{index}.{name}"] = stacked(parameter, tensors, rows.get(name))
        return sources

    def product_weights(self) -> Iterator[tuple[nn.Module, str]]:
        """The module and the name of the weight of each product."""
        for layer in self._layers:
            yield from ((layer, name) for name in ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"))

    def products(self) -> list[Product]:
        """Each different product of a forward, those of the last layer's parts included."""
        layer, q_size = self._layers[-1], self._heads * self._head_dim
        bias = layer.qkv_bias
        parts = [slice(None), slice(q_size), slice(q_size, None)]
        of_qkv = [(layer.qkv_proj[part], None if bias is None else bias[part]) for part in parts]
        others = [(layer.o_proj, layer.o_bias), (layer.gate_up_proj, None), (layer.down_proj, None)]
        return self.feed.products([*of_qkv, *others])

    def forward(self, batch: Packed, rows_R: Tensor | None = None) -> Tensor:
        """Run the batch.

        Args:
            batch: texts one after another.
            rows_R: int (R,), the last token of each text, where only these are wanted; all T rows otherwise.

        Returns:
            Final-norm hidden states, (R, D) or (T, D), in the model's dtype.
        """
        hidden_TD = torch.nn.functional.embedding(batch.ids_T, self.embed_tokens)
        if self._ops.fused is not None and self._is_few(batch):
            return self._forward_few(self._ops.fused, batch, hidden_TD, rows_R)
        residual_TD: Tensor | None = None
        last = len(self._layers) - 1
        for index, layer in enumerate(self._layers):
            normed, residual_TD = self._add_norm(hidden_TD, residual_TD, layer.input_layernorm)
            if index == last and rows_R is not None:
                attended_TC, residual_TD = self._attend_rows(layer, normed, residual_TD, batch, rows_R)
            else:
                attended_TC = self._attend(layer, normed, batch)
            hidden_TD = self.feed.product(attended_TC, layer.o_proj, layer.o_bias)
            # What nobody reads any more goes at once: the memory of a batch is what lives beside gate and up.
            del attended_TC, normed
            normed, residual_TD = self._add_norm(hidden_TD, residual_TD, layer.post_attention_layernorm)
            del hidden_TD
            gate_up_TF = self.feed.product(normed, layer.gate_up_proj, None)
            del normed
            gated = self.feed.silu_mul(gate_up_TF)
            del gate_up_TF
            hidden_TD = self.feed.product(gated, layer.down_proj, None)
            del gated
        assert residual_TD is not None, "a model has layers"
        return self._ops.add_rms_norm(hidden_TD, residual_TD, self.norm, self._eps)[0]

    def _is_few(self, batch: Packed) -> bool:
        """Whether the fused steps take this batch: they know no shared prefixes, no biases and no tiny heads."""
        fits = self._head_dim >= LEAST_HEAD_DIM and not self._has_bias
        return fits and len(batch.ids_T) <= FEW_TOKENS and not batch.plan.prefix_groups

    def _forward_few(self, steps: FusedKernels, batch: Packed, stream_TD: Tensor, rows_R: Tensor | None) -> Tensor:
        """The layers of few tokens. Every token goes to the end: the weights, not the rows, are what costs."""
        tables_PF = (self._cos, self._sin)
        for layer in self._layers:
            normed = steps.rms_norm(stream_TD, layer.input_layernorm, self._eps, self.feed.dtype)
            attended_TC = steps.attend_raw(
                steps.linear(normed, layer.qkv_proj),
                batch.positions_T,
                (layer.q_norm, layer.k_norm),
                tables_PF,
                batch.plan,
                self._heads,
                self._kv_heads,
                self._eps,
            )
            steps.linear_add_(attended_TC, layer.o_proj, stream_TD)
            normed = steps.rms_norm(stream_TD, layer.post_attention_layernorm, self._eps, self.feed.dtype)
            steps.linear_add_(steps.gate_up(normed, layer.gate_up_proj), layer.down_proj, stream_TD)
        wanted_RD = stream_TD if rows_R is None else stream_TD[rows_R]
        return self._ops.rms_norm(wanted_RD, self.norm, self._eps)

    def _add_norm(self, hidden_TD: Tensor, residual_TD: Tensor | None, weight_D: Tensor) -> tuple[Operand, Tensor]:
        if residual_TD is None:
            return self.feed.rms_norm(hidden_TD, weight_D, self._eps), hidden_TD
        return self.feed.add_rms_norm(hidden_TD, residual_TD, weight_D, self._eps)

    def _rotate_(self, block_TC: Tensor, positions_T: Tensor, layer: _Layer, heads: int, kv_heads: int) -> None:
        self._ops.qk_norm_rope_(
            block_TC, positions_T, layer.q_norm, layer.k_norm, self._cos, self._sin, heads, kv_heads, self._eps
        )

    def _attend(self, layer: _Layer, normed: Operand, batch: Packed) -> Tensor:
        qkv_TC = self.feed.product(normed, layer.qkv_proj, layer.qkv_bias)
        self._rotate_(qkv_TC, batch.positions_T, layer, self._heads, self._kv_heads)
        attend = self._ops.attend_long if batch.plan.dense and self._ops.attend_long else self._ops.attend
        return attend(qkv_TC, batch.plan, self._heads, self._kv_heads, self._head_dim**-0.5, True)

    def _attend_rows(
        self, layer: _Layer, normed: Operand, residual_TD: Tensor, batch: Packed, rows_R: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The last layer: keys and values of every token, queries of the wanted rows alone."""
        q_size = self._heads * self._head_dim
        q_bias = None if layer.qkv_bias is None else layer.qkv_bias[:q_size]
        kv_bias = None if layer.qkv_bias is None else layer.qkv_bias[q_size:]
        q_RC = self.feed.product(normed[rows_R], layer.qkv_proj[:q_size], q_bias)
        kv_TC = self.feed.product(normed, layer.qkv_proj[q_size:], kv_bias)
        self._rotate_(q_RC, batch.positions_T[rows_R], layer, self._heads, 0)
        self._rotate_(kv_TC, batch.positions_T, layer, 0, self._kv_heads)
        attended_RC = self._ops.attend_rows(q_RC, kv_TC, batch.plan, self._heads, self._kv_heads, self._head_dim**-0.5)
        return attended_RC, residual_TD[rows_R]


class _Layer(nn.Module):
    """Parameters of one layer; query, key and value are fused, as are gate and up."""

    def __init__(
        self,
        width: int,
        inner: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        bias: bool,
        device: torch.device,
        dtype: torch.dtype,
        products: torch.device,
    ) -> None:
        super().__init__()
        channels = (heads + 2 * kv_heads) * head_dim
        self.input_layernorm = _parameter(device, dtype, width)
        self.qkv_proj = _parameter(products, dtype, channels, width)
        self.qkv_bias = _parameter(device, dtype, channels) if bias else None
        self.q_norm = _parameter(device, dtype, head_dim)
        self.k_norm = _parameter(device, dtype, head_dim)
        self.o_proj = _parameter(products, dtype, width, heads * head_dim)
        self.o_bias = _parameter(device, dtype, width) if bias else None
        self.post_attention_layernorm = _parameter(device, dtype, width)
        self.gate_up_proj = _parameter(products, dtype, 2 * inner, width)
        self.down_proj = _parameter(products, dtype, width, inner)


_PARTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "input_layernorm": ("input_layernorm.weight",),
        "qkv_proj": ("self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight"),
        "qkv_bias": ("self_attn.q_proj.bias", "self_attn.k_proj.bias", "self_attn.v_proj.bias"),
        "q_norm": ("self_attn.q_norm.weight",),
        "k_norm": ("self_attn.k_norm.weight",),
        "o_proj": ("self_attn.o_proj.weight",),
        "o_bias": ("self_attn.o_proj.bias",),
        "post_attention_layernorm": ("post_attention_layernorm.weight",),
        "gate_up_proj": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
        "down_proj": ("mlp.down_proj.weight",),
    }
)


def _parameter(device: torch.device, dtype: torch.dtype, *shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, device=device, dtype=dtype), requires_grad=False)


def _theta(config: Mapping[str, Any]) -> float:
    """RoPE's base; transformers 5 writes it into rope_parameters, earlier releases beside it."""
    rope = config.get("rope_parameters") or {}
    return float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0)


def _check(config: Mapping[str, Any]) -> None:
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise ModelError(f"RoPE of type {kind!r} is not supported; supported is 'default'")
    if config.get("use_sliding_window"):
        raise ModelError("sliding-window attention (use_sliding_window) is not supported")
    if config.get("hidden_act", "silu") != "silu":
        raise ModelError(f"activation {config['hidden_act']!r} is not supported for Qwen3; supported is 'silu'")

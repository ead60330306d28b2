"""Model shapes for benchmarks with random weights, as folders that the engine and transformers both load.

Not a script. It knows config.json, and what a forward of a shape must compute and read; it knows nothing of engines.
Source of the shapes: the config.json of each model's repository. `tiny` is nobody's model: it is for trying the scripts
out on a CPU.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

_QWEN3: Final = MappingProxyType(
    {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "attention_dropout": 0.0,
        "torch_dtype": "bfloat16",
    }
)


@dataclass(frozen=True, slots=True)
class Work:
    """Floating-point operations of a forward; a multiplication and an addition count as two."""

    linear: float
    attention: float


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a Qwen3 model."""

    width: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    positions: int
    kv_heads: int = 8
    head_dim: int = 128

    @property
    def products(self) -> tuple[tuple[int, int], ...]:
        """(channels in, channels out) of the four products of a layer: qkv, o, gate and up, down."""
        attended = self.heads * self.head_dim
        qkv = attended + 2 * self.kv_heads * self.head_dim
        return (self.width, qkv), (attended, self.width), (self.width, 2 * self.inner), (self.inner, self.width)

    @property
    def layer_weights(self) -> int:
        """Weights in the products of one layer."""
        return sum(into * out for into, out in self.products)

    def weight_bytes(self, itemsize: int) -> int:
        """Bytes that every forward must read: the products of all layers. Norms and rows of the embedding are few."""
        return self.layers * self.layer_weights * itemsize

    def work(self, lengths: Sequence[int]) -> Work:
        """What texts of these lengths need, whoever computes it.

        Linear: two operations a weight and token, in every layer. In the last layer only keys and values are needed
        of every token; queries, o and the MLP are needed of one token a text.
        Attention: a query over k keys takes 2 k E operations a head for the scores and as many for the sum over the
        values, E being the head's width. The i-th token of a text has i keys, since the model is causal; in the last
        layer the last token alone asks.
        """
        tokens, texts = sum(lengths), len(lengths)
        key_value_weights = 2 * self.kv_heads * self.head_dim * self.width
        unneeded = (tokens - texts) * (self.layer_weights - key_value_weights)
        pairs = sum(length * (length + 1) // 2 for length in lengths)
        keys = (self.layers - 1) * pairs + tokens
        return Work(
            linear=2.0 * (tokens * self.layers * self.layer_weights - unneeded),
            attention=4.0 * self.heads * self.head_dim * keys,
        )


SHAPES: Final = MappingProxyType(
    {
        "0.6b": Shape(1024, 28, 16, 3072, 151669, 32768),
        "4b": Shape(2560, 36, 32, 9728, 151665, 40960),
        "8b": Shape(4096, 36, 32, 12288, 151665, 40960),
        "tiny": Shape(64, 2, 8, 128, 151665, 4096, head_dim=16),
    }
)
NAMES: Final = tuple(SHAPES)


def config(name: str) -> dict[str, Any]:
    """The config.json of Qwen3-Embedding ``0.6b``, ``4b`` or ``8b``, or of ``tiny``."""
    shape = SHAPES[name]
    return {
        **_QWEN3,
        "head_dim": shape.head_dim,
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "intermediate_size": shape.inner,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        "eos_token_id": 151643,
        "bos_token_id": 151643,
    }


def write(name: str, folder: Path) -> Path:
    """Write a folder of that shape, without weights, and return it."""
    target = folder / f"qwen3-embedding-{name}"
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps(config(name), indent=1))
    return target

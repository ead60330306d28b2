"""Model shapes for benchmarks with random weights, as folders that the engine and transformers both load.

Not a script: offline.py and serve.py import it. It knows config.json and nothing of engines.
Source of the shapes: the config.json of each model's repository.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

_QWEN3: Final = MappingProxyType(
    {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "attention_bias": False,
        "head_dim": 128,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "attention_dropout": 0.0,
        "eos_token_id": 151643,
        "bos_token_id": 151643,
        "torch_dtype": "bfloat16",
    }
)
_SIZES: Final = MappingProxyType(
    {
        "0.6b": (1024, 28, 16, 3072, 151669, 32768),
        "4b": (2560, 36, 32, 9728, 151665, 40960),
        "8b": (4096, 36, 32, 12288, 151665, 40960),
    }
)
NAMES: Final = tuple(_SIZES)


def config(name: str) -> dict[str, Any]:
    """The config.json of Qwen3-Embedding ``0.6b``, ``4b`` or ``8b``."""
    width, layers, heads, inner, vocabulary, positions = _SIZES[name]
    return {
        **_QWEN3,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
        "max_position_embeddings": positions,
    }


def write(name: str, folder: Path) -> Path:
    """Write a folder of that shape, without weights, and return it."""
    target = folder / f"qwen3-embedding-{name}"
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps(config(name), indent=1))
    return target


def flops_per_token(name: str) -> float:
    """Multiply-adds of the matrix products, twice, a token; attention and the last layer's pruning left out."""
    width, layers, heads, inner, _, _ = _SIZES[name]
    attention = width * (heads + 16) * 128 + heads * 128 * width
    return 2.0 * layers * (attention + 3 * width * inner)

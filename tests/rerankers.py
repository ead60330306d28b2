"""Tiny rerankers and classifiers with random weights, in the exact folder layouts of the hub.

transformers creates and saves them. It knows nothing of anydim.
"""

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import torch
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3ForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

from tests.checkpoints import add_tensor, edit_json, save_random, special_names, write_json, write_tokenizer_files
from tests.qwen_tokenizer import END_OF_TEXT, VOCAB_SIZE

_ENCODERS: Final = MappingProxyType(
    {
        "bert": (BertConfig, BertForSequenceClassification, {"pad_token_id": 0}),
        "roberta": (RobertaConfig, RobertaForSequenceClassification, {"pad_token_id": 1, "type_vocab_size": 1}),
        "xlm-roberta": (
            XLMRobertaConfig,
            XLMRobertaForSequenceClassification,
            {"pad_token_id": 1, "type_vocab_size": 1},
        ),
    }
)


@dataclass(frozen=True, kw_only=True)
class CausalSpec:
    """One Qwen3 reranker.

    Attributes:
        tied: whether the vocabulary's matrix is the embedding (0.6B, 4B) or one of its own (8B).
        stored: whether a tied matrix is stored all the same.
        labels: 0 for the original causal checkpoint, else the rows of a ``score`` head.
    """

    tied: bool = True
    stored: bool = False
    labels: int = 0
    shard_size: str | None = None
    dtype: torch.dtype = torch.float32
    width: int = 48
    positions: int = 1024


@dataclass(frozen=True, kw_only=True)
class CrossSpec:
    """One cross-encoder or classifier; ``activation`` is what CrossEncoder keeps in config.json, or None."""

    kind: Literal["bert", "roberta", "xlm-roberta"] = "bert"
    labels: int = 1
    activation: Literal["Sigmoid", "Identity"] | None = None
    positions: int = 130
    width: int = 60


def write_qwen3_reranker(folder: Path, spec: CausalSpec, tokenizer: Path) -> Path:
    """Write a Qwen3-Reranker look-alike: no sentence-transformers files, and the chat model's tokenizer."""
    config = Qwen3Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=spec.width,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=spec.positions,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=spec.tied,
        pad_token_id=END_OF_TEXT,
        eos_token_id=151645,
        **({"num_labels": spec.labels} if spec.labels else {}),
    )
    model = (Qwen3ForSequenceClassification if spec.labels else Qwen3ForCausalLM)(config)
    save_random(folder, model, 0.12, spec.dtype, spec.shard_size)
    if spec.stored:
        add_tensor(folder, "lm_head.weight", load_file(folder / "model.safetensors")["model.embed_tokens.weight"])
    names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None, "bos_token": None}
    write_tokenizer_files(folder, tokenizer, "Qwen2Tokenizer", 131072, names)
    return folder


def write_cross_encoder(folder: Path, spec: CrossSpec, tokenizer: Path) -> Path:
    """Write a BERT, RoBERTa or XLM-RoBERTa cross-encoder."""
    make_config, make_model, more = _ENCODERS[spec.kind]
    config = make_config(
        vocab_size=640,
        hidden_size=spec.width,
        num_hidden_layers=3,
        num_attention_heads=5,
        intermediate_size=112,
        max_position_embeddings=spec.positions,
        num_labels=spec.labels,
        **more,
    )
    save_random(folder, make_model(config), 0.1, torch.float32, None)
    if spec.activation is not None:
        name = {"Sigmoid": "activation.Sigmoid", "Identity": "linear.Identity"}[spec.activation]
        edit_json(folder / "config.json", sentence_transformers={"activation_fn": f"torch.nn.modules.{name}"})
    limit = spec.positions - (0 if spec.kind == "bert" else 2)
    kind = "BertTokenizer" if spec.kind == "bert" else "PreTrainedTokenizerFast"
    write_tokenizer_files(folder, tokenizer, kind, limit, special_names(spec.kind))
    return folder


def add_logit_score(folder: Path, **files: Any) -> Path:
    """Turn a causal reranker into sentence-transformers' own layout: a Transformer and a LogitScore module."""
    kinds = [
        ("", "base.modules.transformer.Transformer"),
        ("1_LogitScore", "cross_encoder.modules.logit_score.LogitScore"),
    ]
    rows = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.{kind}"}
        for place, (path, kind) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", rows)
    (folder / "1_LogitScore").mkdir()
    write_json(folder / "1_LogitScore" / "config.json", {"true_token_id": 9693, "false_token_id": 2152})
    write_json(folder / "config_sentence_transformers.json", {"model_type": "CrossEncoder", **files})
    return folder

"""Tiny checkpoints with random weights, in the folder layouts of the hub. transformers creates and saves them.

All weights are random at a healthy scale, norms and biases included, so that a forgotten or misplaced one shows. It
knows nothing of anydim.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertModel,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

QUERY_PROMPT: Final = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
_POOLING_FLAGS: Final = (
    "cls_token",
    "mean_tokens",
    "max_tokens",
    "mean_sqrt_len_tokens",
    "weightedmean_tokens",
    "lasttoken",
)
_ENCODERS: Final = MappingProxyType(
    {
        "bert": (BertConfig, BertModel, {"pad_token_id": 0}),
        "roberta": (RobertaConfig, RobertaModel, {"pad_token_id": 1, "type_vocab_size": 1}),
        "xlm-roberta": (XLMRobertaConfig, XLMRobertaModel, {"pad_token_id": 1, "type_vocab_size": 1}),
    }
)


@dataclass(frozen=True, kw_only=True)
class Qwen3Spec:
    """One Qwen3 embedding checkpoint.

    Attributes:
        head_dim: width of a head; as in the real models not width / heads.
        prefixed: whether tensor names start with ``model.``.
        shard_size: largest file, as transformers writes it (``200KB``), or None for one file.
        lm_head: ``none`` (as on the hub), ``tied`` (stored though tied) or ``own`` (stored and another matrix).
        dtype: precision of the stored weights.
    """

    width: int = 64
    layers: int = 3
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 16
    inner: int = 96
    vocab: int = 640
    positions: int = 512
    theta: float = 1e6
    bias: bool = False
    prefixed: bool = False
    shard_size: str | None = None
    lm_head: Literal["none", "tied", "own"] = "none"
    dtype: torch.dtype = torch.float32
    scale: float = 0.12


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """One BERT-family checkpoint; ``positions`` is what config.json says, RoBERTa's reserved ones included."""

    kind: Literal["bert", "roberta", "xlm-roberta"] = "bert"
    pooling: Literal["mean", "cls", "max"] = "mean"
    width: int = 60
    layers: int = 3
    heads: int = 5
    inner: int = 112
    vocab: int = 640
    positions: int = 130
    activation: str = "gelu"
    prefixed: bool = False
    normalize: bool = True
    dtype: torch.dtype = torch.float32
    scale: float = 0.1


def write_qwen3(folder: Path, spec: Qwen3Spec, tokenizer: Path | None = None) -> Path:
    """Write a Qwen3-Embedding look-alike; without a tokenizer it serves token ids only."""
    config = Qwen3Config(
        vocab_size=spec.vocab,
        hidden_size=spec.width,
        intermediate_size=spec.inner,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.kv_heads,
        head_dim=spec.head_dim,
        max_position_embeddings=spec.positions,
        attention_bias=spec.bias,
        rope_parameters={"rope_type": "default", "rope_theta": spec.theta},
        tie_word_embeddings=spec.lm_head != "own",
    )
    causal = spec.prefixed or spec.lm_head != "none"
    save_random(folder, (Qwen3ForCausalLM if causal else Qwen3Model)(config), spec.scale, spec.dtype, spec.shard_size)
    if spec.lm_head == "tied":
        add_tensor(folder, "lm_head.weight", load_file(folder / "model.safetensors")["model.embed_tokens.weight"])
    edit_json(folder / "config.json", architectures=["Qwen3ForCausalLM"])
    _write_modules(folder, spec.width, "lasttoken", normalize=True)
    prompts = {"query": QUERY_PROMPT, "document": ""}
    write_json(folder / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": None})
    if tokenizer is not None:
        names = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": None, "bos_token": None}
        write_tokenizer_files(folder, tokenizer, "Qwen2Tokenizer", 131072, names)
    return folder


def write_encoder(folder: Path, spec: EncoderSpec, tokenizer: Path | None = None) -> Path:
    """Write a BERT, RoBERTa or XLM-RoBERTa checkpoint."""
    make_config, make_model, more = _ENCODERS[spec.kind]
    config = make_config(
        vocab_size=spec.vocab,
        hidden_size=spec.width,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        intermediate_size=spec.inner,
        max_position_embeddings=spec.positions,
        hidden_act=spec.activation,
        **more,
    )
    save_random(folder, make_model(config), spec.scale, spec.dtype, None)
    if spec.prefixed:
        prefix = "bert." if spec.kind == "bert" else "roberta."
        rename_tensors(folder, lambda name: prefix + name)
    flag = "cls_token" if spec.pooling == "cls" else f"{spec.pooling}_tokens"
    _write_modules(folder, spec.width, flag, spec.normalize)
    limit = spec.positions - (0 if spec.kind == "bert" else 2)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": limit, "do_lower_case": False})
    if tokenizer is not None:
        write_tokenizer_files(folder, tokenizer, "PreTrainedTokenizerFast", limit, special_names(spec.kind))
    return folder


def write_json(file: Path, value: Any) -> None:
    """Write a JSON file."""
    file.write_text(json.dumps(value, indent=2), encoding="utf-8")


def edit_json(file: Path, **changes: Any) -> None:
    """Change keys of a JSON object in place; a value of ``...`` removes its key."""
    merged = json.loads(file.read_text(encoding="utf-8")) | changes
    write_json(file, {key: value for key, value in merged.items() if value is not ...})


def add_tensor(folder: Path, name: str, value: torch.Tensor) -> None:
    """Add or replace a tensor of a single-file checkpoint."""
    file = folder / "model.safetensors"
    save_file({**load_file(file), name: value.clone()}, file, metadata={"format": "pt"})


def rename_tensors(folder: Path, rename: Any) -> None:
    """Rename all tensors of a single-file checkpoint."""
    file = folder / "model.safetensors"
    save_file({rename(name): value for name, value in load_file(file).items()}, file, metadata={"format": "pt"})


def save_random(folder: Path, model: PreTrainedModel, scale: float, dtype: torch.dtype, shard_size: str | None) -> None:
    """Save a model of transformers with random weights at a healthy scale."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, scale, generator=generator)
            elif name.endswith("bias"):
                parameter.normal_(0.0, 0.2, generator=generator)
            else:  # the weight of a norm
                parameter.uniform_(0.5, 1.5, generator=generator)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard_size or "5GB")


def _write_modules(folder: Path, width: int, flag: str, normalize: bool) -> None:
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")][: 3 if normalize else 2]
    rows = [
        {"idx": place, "name": str(place), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for place, (path, kind) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", rows)
    (folder / "1_Pooling").mkdir()
    flags = {f"pooling_mode_{name}": name == flag for name in _POOLING_FLAGS}
    write_json(
        folder / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **flags, "include_prompt": True}
    )


def write_tokenizer_files(folder: Path, tokenizer: Path, kind: str, limit: int, names: dict[str, str | None]) -> None:
    """Write tokenizer.json and tokenizer_config.json."""
    shutil.copyfile(tokenizer, folder / "tokenizer.json")
    settings = {"tokenizer_class": kind, "model_max_length": limit, "clean_up_tokenization_spaces": False}
    write_json(folder / "tokenizer_config.json", settings | names)


def special_names(kind: str) -> dict[str, str | None]:
    """Special tokens by their role."""
    if kind == "bert":
        return {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    return {"bos_token": "<s>", "eos_token": "</s>", "cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>"}

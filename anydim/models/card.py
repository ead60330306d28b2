"""ModelCard: what intake and the command line know of a model, read from the folder's own files.

It reads config.json and the sentence-transformers files (modules.json, the pooling folder,
config_sentence_transformers.json, sentence_bert_config.json, tokenizer_config.json). It never reads weights, runs no
code from the folder, and imports no torch.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from anydim.errors import ModelError
from anydim.models.files import positive_integer, read_json, read_modules
from anydim.models.scorer import Scorer, Task, read_scorer
from anydim.types import Pooling


class Family(enum.StrEnum):
    """The architectures that anydim runs."""

    QWEN3 = "qwen3"
    BERT = "bert"
    ROBERTA = "roberta"


_ARCHITECTURES: Final = MappingProxyType(
    {
        "Qwen3ForCausalLM": Family.QWEN3,
        "Qwen3Model": Family.QWEN3,
        "BertModel": Family.BERT,
        "BertForMaskedLM": Family.BERT,
        "RobertaModel": Family.ROBERTA,
        "RobertaForMaskedLM": Family.ROBERTA,
        "XLMRobertaModel": Family.ROBERTA,
        "XLMRobertaForMaskedLM": Family.ROBERTA,
        "Qwen3ForSequenceClassification": Family.QWEN3,
        "BertForSequenceClassification": Family.BERT,
        "RobertaForSequenceClassification": Family.ROBERTA,
        "XLMRobertaForSequenceClassification": Family.ROBERTA,
    }
)
_POOLING_FLAGS: Final = MappingProxyType(
    {
        "pooling_mode_lasttoken": Pooling.LAST,
        "pooling_mode_cls_token": Pooling.CLS,
        "pooling_mode_mean_tokens": Pooling.MEAN,
        "pooling_mode_max_tokens": Pooling.MAX,
    }
)
_INSTRUCT: Final = re.compile(r"Instruct: (?P<task>.*)\nQuery:(?P<space> ?)", re.DOTALL)
_QWEN3_TEMPLATE: Final = "Instruct: {instruction}\nQuery:{text}"
_UNBOUNDED: Final = 10**9  # tokenizers without a limit write 1e30 as model_max_length


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Prompts, limits and widths of one model.

    Attributes:
        name: the hub id, or the folder's last part.
        folder: where its files lie.
        family: which forward runs it.
        width: components of the full vector.
        max_tokens: the longest input, special tokens included.
        vocab_size: token ids are below it.
        pooling: how token states become one vector.
        lower_case: whether texts are put in lower case before tokenising (do_lower_case).
        normalized: whether the folder itself asks for unit vectors (a Normalize module).
        prompts: sentence-transformers prompts by name; the text is put behind them.
        default_prompt: name of the prompt used when a request names none, or None.
        instruction_template: how an instruction is put before a text (``{instruction}``, ``{text}``); None where the
            model was not trained with instructions.
        scorer: how it scores, where it is a reranker or a classifier; None for an embedding model.
        config: the contents of config.json.
    """

    name: str
    folder: Path
    family: Family
    width: int
    max_tokens: int
    vocab_size: int
    pooling: Pooling
    lower_case: bool = False
    normalized: bool = True
    prompts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    default_prompt: str | None = None
    instruction_template: str | None = None
    scorer: Scorer | None = None
    config: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def tokenizer_file(self) -> Path:
        """The Hugging Face fast tokenizer."""
        return self.folder / "tokenizer.json"


def read_card(folder: Path, name: str | None = None, task: Task = "auto") -> ModelCard:
    """Read the card of a local model folder.

    Args:
        folder: a sentence-transformers or plain Hugging Face folder.
        name: the hub id; the folder's last part by default.
        task: what the model is wanted for; by default what its files say.

    Raises:
        ModelError: a file is missing or broken, or the architecture, a module or the pooling is not supported.
    """
    config = read_json(folder / "config.json")
    family = _family(config, folder)
    _refuse_quantized(config, folder)
    scorer = read_scorer(folder, config, task)
    modules = read_modules(folder)
    _check_modules(modules, folder, scorer is not None)
    prompts, default_prompt = ({}, None) if scorer else _prompts(folder)
    return ModelCard(
        name=name or folder.resolve().name,
        folder=folder,
        family=family,
        width=positive_integer(config, "hidden_size", folder),
        max_tokens=_max_tokens(config, family, folder),
        vocab_size=positive_integer(config, "vocab_size", folder),
        pooling=_scored(family) if scorer else _pooling(folder, modules, family),
        lower_case=_transformer_settings(folder).get("do_lower_case") is True,
        normalized="Normalize" in modules,
        prompts=MappingProxyType(prompts),
        default_prompt=default_prompt,
        instruction_template=None if scorer else _instruction_template(prompts, family),
        scorer=scorer,
        config=MappingProxyType(config),
    )


def _family(config: dict[str, Any], folder: Path) -> Family:
    names = config.get("architectures") or []
    for name in names:
        if name in _ARCHITECTURES:
            return _ARCHITECTURES[name]
    supported = ", ".join(sorted(_ARCHITECTURES))
    found = ", ".join(map(str, names)) or f"none (model_type {config.get('model_type')!r})"
    raise ModelError(f"{folder}: architecture {found} is not supported; supported are {supported}")


def _refuse_quantized(config: dict[str, Any], folder: Path) -> None:
    """Weights that need scales of their own to mean anything are not read as if they needed none."""
    found = config.get("quantization_config") or {}
    if found:
        kind = found.get("quant_method", "unknown method") if isinstance(found, dict) else found
        raise ModelError(
            f"{folder} holds quantised weights ({kind}), which are not supported; use the model they were made from, "
            "with --quantization fp8 or int8"
        )


def _check_modules(modules: dict[str, str], folder: Path, scores: bool) -> None:
    supported = ("Transformer", "LogitScore") if scores else ("Transformer", "Pooling", "Normalize")
    unknown = sorted(set(modules) - set(supported))
    if unknown:
        raise ModelError(
            f"{folder}: sentence-transformers module {', '.join(unknown)} is not supported; "
            f"supported are {', '.join(supported[:-1])} and {supported[-1]}"
        )


def _scored(family: Family) -> Pooling:
    """The token whose state is scored."""
    return Pooling.LAST if family is Family.QWEN3 else Pooling.CLS


def _pooling(folder: Path, modules: dict[str, str], family: Family) -> Pooling:
    if "Pooling" not in modules:
        return Pooling.LAST if family is Family.QWEN3 else Pooling.MEAN
    path = folder / modules["Pooling"] / "config.json"
    config = read_json(path)
    if config.get("include_prompt") is False:
        raise ModelError(f"{path}: pooling without the prompt's tokens (include_prompt false) is not supported")
    wanted = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    named = config.get("pooling_mode")
    if not wanted and isinstance(named, str) and named in set(Pooling):
        return Pooling(named)
    if len(wanted) != 1 or wanted[0] not in _POOLING_FLAGS:
        found = ", ".join(wanted) or repr(named)
        raise ModelError(f"{path}: pooling {found} is not supported; supported is one of {', '.join(Pooling)}")
    return _POOLING_FLAGS[wanted[0]]


def _prompts(folder: Path) -> tuple[dict[str, str], str | None]:
    path = folder / "config_sentence_transformers.json"
    if not path.exists():
        return {}, None
    config = read_json(path)
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise ModelError(f"{path}: prompts must be texts by name")
    default = config.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ModelError(f"{path}: default_prompt_name {default!r} is not among its prompts")
    return prompts, default


def _instruction_template(prompts: dict[str, str], family: Family) -> str | None:
    match = _INSTRUCT.fullmatch(prompts.get("query", ""))
    if match:
        return "Instruct: {instruction}\nQuery:" + match["space"] + "{text}"
    return _QWEN3_TEMPLATE if family is Family.QWEN3 else None


def _max_tokens(config: dict[str, Any], family: Family, folder: Path) -> int:
    """The least of what the positions, the sentence-transformers file and the tokenizer allow."""
    positions = positive_integer(config, "max_position_embeddings", folder)
    if family is Family.ROBERTA:  # the first pad_token_id + 1 positions are reserved
        positions -= int(config.get("pad_token_id") or 0) + 1
    tokenizer = folder / "tokenizer_config.json"
    stated = (
        _transformer_settings(folder).get("max_seq_length"),
        read_json(tokenizer).get("model_max_length") if tokenizer.exists() else None,
    )
    limits = [int(value) for value in stated if isinstance(value, int | float) and 0 < value < _UNBOUNDED]
    return min([positions, *limits])


def _transformer_settings(folder: Path) -> dict[str, Any]:
    """What sentence-transformers keeps of its Transformer module, under one of the names that it has used."""
    for kind in ("bert", "roberta", "xlm-roberta"):
        path = folder / f"sentence_{kind}_config.json"
        if path.exists():
            return read_json(path)
    return {}

"""Scorer: whether a folder holds a reranker or classifier, and how it scores; read from its own files.

It reads config.json, the sentence-transformers files and tokenizer.json. It never reads weights and imports no torch.
docs/reranking.md says how a model is recognised. Source of the keys: sentence_transformers.CrossEncoder for
``activation_fn`` and LogitScore; transformers for ``id2label``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

from anydim.errors import ModelError
from anydim.models.files import positive_integer, read_json, read_modules, read_optional_json

Task = Literal["auto", "embed", "rerank"]

Kind = TypeVar("Kind")

_CLASSIFIER: Final = "ForSequenceClassification"
_CAUSAL: Final = "ForCausalLM"
_CONFIG: Final = "config_sentence_transformers.json"
_YES_NO: Final = ("yes", "no")


class HeadKind(enum.StrEnum):
    """How a pooled state becomes scores."""

    YES_NO = "yes-no"  # the difference of two rows of the vocabulary's matrix
    LINEAR = "linear"  # one product without bias, behind the last token
    DENSE = "dense"  # a dense layer with tanh, then one product, behind the first token


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """How a model scores.

    Attributes:
        head: what stands behind the encoder.
        labels: the names of its scores; one of a reranker.
        is_prompted: whether query and document are put into Qwen3's reranking prompt; a pair of texts otherwise.
        squashes: whether the folder asks for scores between 0 and 1 (CrossEncoder's default for one label).
        answers: token ids of yes and no of a YES_NO head.
        separator: the token behind which the second of two texts starts, where that has a type of its own (BERT).
        instruction: the folder's own default instruction, or None.
        reason: why the folder counts as what it is, for people.
    """

    head: HeadKind
    labels: tuple[str, ...]
    is_prompted: bool
    squashes: bool
    answers: tuple[int, int] | None = None
    separator: int | None = None
    instruction: str | None = None
    reason: str

    @property
    def is_reranker(self) -> bool:
        """Whether it has the one score that documents can be ordered by."""
        return len(self.labels) == 1


def read_scorer(folder: Path, config: Mapping[str, Any], task: Task) -> Scorer | None:
    """How a folder's model scores; None for an embedding model.

    Args:
        folder: the model folder.
        config: its config.json.
        task: what the model is wanted for; ``auto`` lets the files decide.

    Raises:
        ModelError: the files contradict ``task``, or are broken.
    """
    names = [str(name) for name in config.get("architectures") or []]
    if any(name.endswith(_CLASSIFIER) for name in names):
        if task == "embed":
            raise ModelError(f"{folder}: {', '.join(names)} has a head that scores and gives no embeddings")
        return _classifier(folder, config, names)
    if any(name.endswith(_CAUSAL) for name in names):
        reason = "it was asked for" if task == "rerank" else _reason_to_rerank(folder) if task == "auto" else None
        return None if reason is None else _causal(folder, reason)
    if task == "rerank":
        raise ModelError(f"{folder}: {', '.join(names) or 'its model'} has no head that scores, so it cannot rerank")
    return None


def _classifier(folder: Path, config: Mapping[str, Any], names: list[str]) -> Scorer:
    is_causal = any(name.startswith("Qwen3") for name in names)
    labels = _labels(config, folder)
    is_prompted = is_causal and len(labels) == 1
    return Scorer(
        head=HeadKind.LINEAR if is_causal else HeadKind.DENSE,
        labels=labels,
        is_prompted=is_prompted,
        squashes=is_prompted or _squashes(folder, config, len(labels)),
        separator=_separator(folder) if any(name.startswith("Bert") for name in names) else None,
        instruction=_instruction(folder) if is_prompted else None,
        reason=f"its architecture is {', '.join(names)}",
    )


def _causal(folder: Path, reason: str) -> Scorer:
    return Scorer(
        head=HeadKind.YES_NO,
        labels=("yes",),
        is_prompted=True,
        squashes=True,
        answers=_answers(folder),
        instruction=_instruction(folder),
        reason=reason,
    )


def _reason_to_rerank(folder: Path) -> str | None:
    """Why a causal folder is a reranker, or None.

    Embedding and reranking checkpoints of Qwen3 have the same architecture. What the sentence-transformers files say
    decides; without them, whether the tokenizer appends a token to be pooled, as every embedding checkpoint's does.
    """
    modules = read_modules(folder)
    if "Pooling" in modules:
        return None
    if "LogitScore" in modules:
        return "modules.json has a LogitScore module"
    kind = read_optional_json(folder / _CONFIG).get("model_type")
    if kind in ("CrossEncoder", "SentenceTransformer"):
        return f"{_CONFIG} says CrossEncoder" if kind == "CrossEncoder" else None
    if not (folder / "tokenizer.json").exists() or _appends_a_token(folder / "tokenizer.json"):
        return None
    return "its tokenizer appends no token that could be pooled"


class _Processor(msgspec.Struct):
    """A post-processor of tokenizer.json, or a sequence of them."""

    type: str = ""
    single: list[dict[str, Any]] = []
    pair: list[dict[str, Any]] = []
    special_tokens: dict[str, Any] = {}
    sep: tuple[str, int] | None = None
    processors: list[_Processor] = []

    def appends(self) -> bool:
        if self.type == "Sequence":
            return any(part.appends() for part in self.processors)
        return any("SpecialToken" in piece for piece in self.single)

    def separator(self) -> int | None:
        if self.type == "BertProcessing" and self.sep is not None:
            return self.sep[1]
        for before, piece in zip(self.pair, self.pair[1:], strict=False):
            if piece.get("Sequence", {}).get("type_id") == 1 and "SpecialToken" in before:
                return int(self.special_tokens[before["SpecialToken"]["id"]]["ids"][-1])
        return next((found for part in self.processors if (found := part.separator()) is not None), None)


class _TokenizerFile(msgspec.Struct):
    post_processor: _Processor | None = None


def _appends_a_token(file: Path) -> bool:
    processor = _post_processor(file)
    return processor is not None and processor.appends()


def _separator(folder: Path) -> int | None:
    file = folder / "tokenizer.json"
    processor = _post_processor(file) if file.exists() else None
    try:
        return None if processor is None else processor.separator()
    except (KeyError, IndexError, TypeError) as error:
        raise ModelError(f"{file}: its post-processor names no token between two texts") from error


def _post_processor(file: Path) -> _Processor | None:
    return _read_tokenizer(file, _TokenizerFile).post_processor


def _read_tokenizer(file: Path, kind: type[Kind]) -> Kind:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise ModelError(f"{file} is not a valid tokenizer: {error}") from error


def _answers(folder: Path) -> tuple[int, int]:
    """The ids of yes and no: of the LogitScore module, else of the tokenizer."""
    modules = read_modules(folder)
    if "LogitScore" in modules:
        config = read_json(folder / modules["LogitScore"] / "config.json")
        found = (config.get("true_token_id"), config.get("false_token_id"))
        if not all(isinstance(answer, int) for answer in found):
            raise ModelError(f"{folder / modules['LogitScore']}: a LogitScore needs true_token_id and false_token_id")
        return int(str(found[0])), int(str(found[1]))
    file = folder / "tokenizer.json"
    if not file.exists():
        raise ModelError(f"{folder} has no tokenizer.json, which says what `yes` and `no` are")
    vocabulary = _read_tokenizer(file, _WordsFile).model.vocab
    missing = [answer for answer in _YES_NO if answer not in vocabulary]
    if missing:
        raise ModelError(f"{file}: {' and '.join(missing)} is no single token, so the model cannot judge with it")
    return vocabulary["yes"], vocabulary["no"]


class _Words(msgspec.Struct):
    vocab: dict[str, int]


class _WordsFile(msgspec.Struct):
    model: _Words


def _labels(config: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    named = config.get("id2label")
    if isinstance(named, dict) and named:
        return tuple(str(named.get(str(place), f"LABEL_{place}")) for place in range(len(named)))
    count = positive_integer(config, "num_labels", folder) if "num_labels" in config else 2
    return tuple(f"LABEL_{place}" for place in range(count))


def _squashes(folder: Path, config: Mapping[str, Any], labels: int) -> bool:
    """Whether CrossEncoder would apply a sigmoid: by the activation that the folder names, else for one label."""
    stated = config.get("sentence_transformers")
    names = (
        stated.get("activation_fn") if isinstance(stated, dict) else None,
        config.get("sbert_ce_default_activation_function"),
        read_optional_json(folder / _CONFIG).get("activation_fn"),
    )
    for name in names:
        if isinstance(name, str):
            return name.rsplit(".", 1)[-1] == "Sigmoid"
    return labels == 1


def _instruction(folder: Path) -> str | None:
    """The prompt that the folder's sentence-transformers file names as the default one."""
    config = read_optional_json(folder / _CONFIG)
    prompts, name = config.get("prompts"), config.get("default_prompt_name")
    found = prompts.get(name) if isinstance(prompts, dict) and name is not None else None
    return found if isinstance(found, str) and found else None

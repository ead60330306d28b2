"""The rivals that can run here, on the same random ids as our engine: transformers and sentence-transformers.

Not a script: offline.py runs them with --rival. It knows their forwards; it knows no engine of ours.

What is fair: both get token ids and no text, so that no tokenizer is timed, and both end with unit vectors in host
memory. transformers runs its own forward on padded batches of neighbours in length, up to 16384 tokens, as our engine
takes them. sentence-transformers takes only texts; what it does beyond its tokenizer is done here: transformers'
forward on batches of 32 texts from the longest on, as its `encode` makes them by default, then its own pooling and
normalising modules. On real texts, tokenizers included, benchmarks/texts.py compares it whole.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

from anydim.types import Item
from benchmarks.cases import Run

_TOKENS: Final = 16384
_ENCODE_BATCH: Final = 32

Head = Callable[[Tensor, Tensor], Tensor]


def transformers_rival(folder: Path, device: torch.device, dtype: torch.dtype) -> Run:
    """transformers' forward, last token pooled, in batches of up to 16384 tokens with their padding."""

    def head(hidden: Tensor, _: Tensor) -> Tensor:
        return torch.nn.functional.normalize(hidden[:, -1].float())

    return _runner(_model(folder, device, dtype), head, by_tokens, device)


def sentence_transformers_rival(folder: Path, device: torch.device, dtype: torch.dtype) -> Run:
    """transformers' forward with sentence-transformers' own modules behind it, in batches of 32 texts."""
    try:
        modules = importlib.import_module("sentence_transformers.sentence_transformer.modules")
    except ImportError:  # before release 6
        modules = importlib.import_module("sentence_transformers.models")
    model = _model(folder, device, dtype)
    stages = [modules.Pooling(model.config.hidden_size, "lasttoken"), modules.Normalize()]

    def head(hidden: Tensor, mask: Tensor) -> Tensor:
        features = {"token_embeddings": hidden, "attention_mask": mask}
        for stage in stages:
            features = stage(features)
        return features["sentence_embedding"].float()

    return _runner(model, head, by_texts, device)


_RIVALS: Final = MappingProxyType(
    {"transformers": transformers_rival, "sentence-transformers": sentence_transformers_rival}
)
NAMES: Final = tuple(_RIVALS)


def rival(name: str, folder: Path, device: torch.device, dtype: torch.dtype) -> Run | None:
    """How a rival runs Items; None, with a line that says so, where it is not installed."""
    try:
        importlib.import_module(name.replace("-", "_"))
    except ImportError as error:
        print(f"{name} cannot be measured here: {error}", flush=True)
        return None
    return _RIVALS[name](folder, device, dtype)


def by_tokens(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Neighbours in length, the longest first, up to 16384 tokens a batch with its padding."""
    ordered = sorted(items, key=lambda item: -len(item.ids))
    while ordered:
        count = max(1, _TOKENS // len(ordered[0].ids))
        yield ordered[:count]
        ordered = ordered[count:]


def by_texts(items: Sequence[Item]) -> Iterator[list[Item]]:
    """Neighbours in length, the longest first, 32 texts a batch."""
    ordered = sorted(items, key=lambda item: -len(item.ids))
    for start in range(0, len(ordered), _ENCODE_BATCH):
        yield ordered[start : start + _ENCODE_BATCH]


def _model(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    from transformers import AutoConfig, AutoModel

    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            config = AutoConfig.from_pretrained(folder)
            return AutoModel.from_config(config, attn_implementation="sdpa").eval()  # type: ignore[no-untyped-call]
    finally:
        torch.set_default_dtype(torch.float32)


def _runner(
    model: Any, head: Head, batches: Callable[[Sequence[Item]], Iterator[list[Item]]], device: torch.device
) -> Run:
    @torch.inference_mode()
    def run(items: list[Item]) -> None:
        vectors = []
        for part in batches(items):
            ids, mask = (tensor.to(device) for tensor in padded(part))
            # Without a mask torch may take its fastest attention kernel.
            needed = None if len({len(item.ids) for item in part}) == 1 else mask
            hidden = model(input_ids=ids, attention_mask=needed, use_cache=False).last_hidden_state
            vectors.append(head(hidden, mask))
        [part.cpu() for part in vectors]

    return run


def padded(items: Sequence[Item]) -> tuple[Tensor, Tensor]:
    """Ids and mask of a batch, int64 (texts, longest), padded on the left as the model's card says."""
    longest = max(len(item.ids) for item in items)
    ids = torch.zeros(len(items), longest, dtype=torch.long)
    mask = torch.zeros(len(items), longest, dtype=torch.long)
    for place, item in enumerate(items):
        ids[place, longest - len(item.ids) :] = torch.from_numpy(item.ids)
        mask[place, longest - len(item.ids) :] = 1
    return ids, mask

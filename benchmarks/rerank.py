"""Rerank: one query against 100 documents, with and without shared prefixes, and transformers in the same run.

Random weights in the shape of Qwen3-Reranker; token ids as the reranking prompt makes them (61 tokens before the query,
9 behind the document), fresh random ids each pass, median of the passes. transformers runs the same pairs padded, in
batches, and scores them by the two rows of the vocabulary's matrix.

Run: python -m benchmarks.rerank --shape 0.6b --documents 100 --lengths 128 512
     python -m benchmarks.rerank --shape tiny --device cpu --dtype float32 --documents 20 --lengths 32
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from anydim.config import EngineSettings, ModelSettings
from anydim.engine.engine import Engine
from anydim.engine.load import load_engine
from anydim.models.card import ModelCard, read_card
from anydim.models.scorer import HeadKind, Scorer
from anydim.types import Item
from benchmarks import report, shapes

_PROMPT: Final = 61  # tokens of system prompt and default instruction
_QUERY: Final = 12
_BEHIND: Final = 9
_PADDED: Final = 16_384  # tokens of one batch of transformers

Pairs = list[np.ndarray[Any, np.dtype[np.int32]]]


def main() -> None:
    """Measure and print."""
    options = _options()
    with tempfile.TemporaryDirectory() as root:
        folder = shapes.write(options.shape, Path(root))
        card = _as_reranker(read_card(folder))
        rows = [_measure(options, card, folder, length) for length in options.lengths]
    report.publish(f"rerank-{options.shape}-{options.dtype}", rows, options.out)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=shapes.NAMES, default="0.6b")
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512], help="tokens of a document")
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--no-rival", action="store_true", help="leave transformers out")
    parser.add_argument("--out", type=Path, help="a file, or a folder for a dated one")
    return parser.parse_args()


def _as_reranker(card: ModelCard) -> ModelCard:
    scorer = Scorer(
        head=HeadKind.YES_NO, labels=("yes",), is_prompted=True, squashes=True, answers=(9693, 2152), reason="asked for"
    )
    return replace(card, scorer=scorer)


def _measure(options: argparse.Namespace, card: ModelCard, folder: Path, length: int) -> dict[str, Any]:
    row: dict[str, Any] = {"documents": options.documents, "tokens_a_document": length}
    for name, shares in (("shared", True), ("unshared", False)):
        engine = _engine(options, card, shares)
        with engine:
            row[f"{name}_ms"] = _median_ms(options, length, partial(_score, engine))
    if not options.no_rival:
        model = _rival(folder, options)
        row["transformers_ms"] = _median_ms(options, length, partial(_score_rival, model))
        row["times_transformers"] = round(row["transformers_ms"] / row["shared_ms"], 2)
        del model
    row["saved_by_sharing"] = round(1 - row["shared_ms"] / row["unshared_ms"], 3)
    return row


def _engine(options: argparse.Namespace, card: ModelCard, shares: bool) -> Engine:
    model = ModelSettings(load_format="dummy", dtype=options.dtype)
    settings = EngineSettings(device=options.device, share_prefixes=shares)
    return load_engine(card, model, settings, show_progress=False)[0]


def _pairs(count: int, length: int, seed: int) -> Pairs:
    """Pairs of one query: what they share, then each document, then what stands behind."""
    random = np.random.default_rng(seed)
    shared = random.integers(0, 150_000, _PROMPT + _QUERY, dtype=np.int32)
    behind = np.arange(1000, 1000 + _BEHIND, dtype=np.int32)
    return [np.concatenate([shared, random.integers(0, 150_000, length, dtype=np.int32), behind]) for _ in range(count)]


def _median_ms(options: argparse.Namespace, length: int, score: Callable[[Pairs], object]) -> float:
    seconds = []
    for seed in range(options.passes + 1):  # the first warms up
        pairs = _pairs(options.documents, length, seed)
        began = time.perf_counter()
        score(pairs)
        seconds.append(time.perf_counter() - began)
    return round(1000 * statistics.median(seconds[1:]), 2)


def _score(engine: Engine, pairs: Pairs) -> list[float]:
    outputs = engine.submit([Item(ids_T, 1) for ids_T in pairs]).result()
    return [float(output.values[0]) for output in outputs]


def _rival(folder: Path, options: argparse.Namespace) -> Any:
    from transformers import AutoConfig, Qwen3ForCausalLM

    device = "cuda" if options.device == "auto" and torch.cuda.is_available() else options.device
    config = AutoConfig.from_pretrained(folder)
    with torch.device("cpu" if device == "auto" else device):
        return Qwen3ForCausalLM(config).to(getattr(torch, options.dtype)).eval()


@torch.inference_mode()
def _score_rival(model: Any, pairs: Sequence[Any]) -> list[float]:
    """All pairs have one length, so that nothing is padded; only the last position meets the vocabulary."""
    size = max(1, _PADDED // len(pairs[0]))
    found: list[float] = []
    for start in range(0, len(pairs), size):
        ids = torch.from_numpy(np.stack(pairs[start : start + size]).astype(np.int64)).to(model.device)
        logits = model(ids, logits_to_keep=1, use_cache=False).logits[:, -1].float()
        found += torch.sigmoid(logits[:, 9693] - logits[:, 2152]).tolist()
    return found


if __name__ == "__main__":
    main()

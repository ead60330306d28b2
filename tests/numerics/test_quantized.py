"""Law 4: int8 and fp8 equal the plain model within the bounds of docs/quantization.md, on trained weights.

On a CPU the products are those of the plain functions: the same rounding as on a GPU, at another speed. The reference
is sentence-transformers in float32.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import nn

from anydim.config import ModelSettings
from anydim.engine.packing import pack
from anydim.errors import ConfigError, ModelError
from anydim.kernels import Scaled
from anydim.models.build import build_model
from anydim.models.card import read_card
from anydim.models.feed import check_quantization
from tests.checkpoints import edit_json
from tests.pipeline import CPU, Pipeline
from tests.shelf import Shelf, load_reference
from tests.texts import SENTENCES, declaration_articles

LEAST_COSINE = MappingProxyType({"minilm": 0.985, "starter": 0.998})
KINDS = ("fp8", "int8")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LEAST_COSINE)
def test_near_to_the_reference(name: str, kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(f"{name}_folder")
    texts = (*SENTENCES, *declaration_articles()[::40])
    theirs = load_reference(folder).encode(list(texts), normalize_embeddings=True)
    ours = Pipeline(folder, quantization=kind).embed(texts)
    assert (ours * np.asarray(theirs)).sum(axis=1).min() >= LEAST_COSINE[name]


@pytest.mark.parametrize("kind", KINDS)
def test_batch_is_single(minilm_folder: Path, kind: str) -> None:
    """In 8 bits a last bit before rounding may turn into a step behind it, so the bound is wider than without."""
    pipeline = Pipeline(minilm_folder, quantization=kind)
    alone = np.concatenate([pipeline.embed([text]) for text in SENTENCES])
    assert (pipeline.embed(SENTENCES) * alone).sum(axis=1).min() >= 0.999


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["qwen3", "qwen3-bias", "qwen3-5-to-1-heads", "bert-cls", "xlm-roberta-mean"])
def test_every_architecture(shelf: Shelf, name: str, kind: str) -> None:
    """Random weights have none of the structure that trained ones keep, so this only says that all parts fit."""
    plain, pipeline = shelf.ours(name), Pipeline(shelf.folder(name), quantization=kind)
    assert (pipeline.embed(SENTENCES) * plain.embed(SENTENCES)).sum(axis=1).min() >= 0.95


def test_products_hold_a_byte_a_weight(shelf: Shelf) -> None:
    pipeline = Pipeline(shelf.folder("qwen3"), quantization="int8")
    weights = [getattr(module, name) for module, name in pipeline.model.product_weights()]
    assert len(weights) == 3 * 4
    assert all(isinstance(weight, Scaled) and weight.values_RC.dtype is torch.int8 for weight in weights)
    assert isinstance(pipeline.model, nn.Module)
    left = {name.rsplit(".", 1)[-1] for name, parameter in pipeline.model.named_parameters() if parameter.ndim > 1}
    assert left == {"embed_tokens"}


def test_sums_are_right_on_processors_without_vnni() -> None:
    """oneDNN's sums of pairs saturate there, so that its product is not asked."""
    program = (
        "import torch; from anydim.kernels import plain_ops; p = plain_ops()\n"
        "torch.cpu._is_vnni_supported = torch.cpu._is_amx_tile_supported = lambda: False\n"
        "x, w = (p.quantize_rows(torch.ones(20, 64), torch.int8) for _ in range(2))\n"
        "assert (p.scaled_mm(x, w, None, torch.float32) - 64).abs().max() < 1e-3\n"
    )
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_a_checkpoint_in_eight_bits_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    """Without its scales it would be read as another model."""
    folder = shutil.copytree(shelf.folder("qwen3"), tmp_path / "fp8")
    edit_json(folder / "config.json", quantization_config={"quant_method": "fp8"})
    with pytest.raises(ModelError, match=r"fp8.*--quantization"):
        read_card(folder)


def test_a_device_without_fp8_is_told_so(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shelf.folder("qwen3")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0))
    settings = ModelSettings(model=str(folder), quantization="fp8")
    card = read_card(folder)
    with pytest.raises(ConfigError, match="int8 works here"):
        build_model(card, settings, torch.device("cuda", 0), torch.bfloat16, (), lambda *_: None)
    for device, capability, dtype, words in (
        ("mps", (0, 0), torch.bfloat16, "not on mps"),
        ("cuda", (7, 5), torch.bfloat16, "8.0 or later"),
        ("cuda", (9, 0), torch.float32, "--dtype bfloat16"),
        ("cuda", (9, 0), torch.float16, "bfloat16 or float32"),
    ):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_, found=capability: found)
        with pytest.raises(ConfigError, match=words):
            check_quantization("fp8", torch.device(device), dtype)
    build_model(read_card(folder), settings, CPU, torch.float32, (), lambda *_: None)


@pytest.mark.parametrize("kind", ["none", *KINDS])
@pytest.mark.parametrize("name", ["qwen3-bfloat16", "bert-cls"])
def test_a_text_that_runs_again_in_float32_uses_the_weights_that_are_stood_for(
    shelf: Shelf, name: str, kind: str
) -> None:
    """Tokens are not rounded there, so the vector is nearer to the plain model's than the usual one."""
    pipeline = Pipeline(shelf.folder(name), dtype=torch.bfloat16, quantization=kind)
    plain = shelf.ours(name).embed(SENTENCES)
    usual = pipeline.embed(SENTENCES)
    batch = pack(pipeline.items(SENTENCES, output_dim=pipeline.card.width))
    again = Pipeline.stack(pipeline.runner.rescue(batch))[np.argsort(batch.order_B)]
    assert np.linalg.norm(again - plain) < 0.9 * np.linalg.norm(usual - plain)
    np.testing.assert_array_equal(pipeline.embed(SENTENCES), usual)  # the model is as it was

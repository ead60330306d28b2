"""What a forward keeps alive while it runs: the memory that a token takes is that of its widest moment."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from anydim.config import ModelSettings
from anydim.engine.packing import pack
from anydim.engine.staging import stage
from anydim.kernels import make_plan, plain_ops, tile_shape
from anydim.models import build
from anydim.models.build import weight_bytes
from anydim.models.card import read_card
from anydim.models.feed import quantizing
from anydim.models.qwen3 import Qwen3
from anydim.types import Item
from tests.checkpoints import EncoderSpec, Qwen3Spec, write_encoder, write_qwen3

EIGHT_BITS = [("qwen3", "int8"), ("qwen3", "fp8"), ("bert", "int8")]
SPEC = Qwen3Spec(width=32, layers=3, heads=2, kv_heads=1, inner=200, vocab=50)
TOKENS = 333  # no size of the model


def bytes_of_tokens() -> int:
    """Bytes of all tensors with a row a token, each memory counted once."""
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), Tensor)]
    rows = [tensor for tensor in tensors if tensor.ndim == 2 and len(tensor) == TOKENS]
    return sum({tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in rows}.values())


def test_only_the_residual_stream_lives_beside_gate_and_up(tmp_path: Path) -> None:
    plain, alive = plain_ops(), []

    def silu_mul(gate_up_TF: Tensor) -> Tensor:
        alive.append(bytes_of_tokens())
        return plain.silu_mul(gate_up_TF)

    card = read_card(write_qwen3(tmp_path / "model", SPEC))
    model = Qwen3(card.config, replace(plain, silu_mul=silu_mul), torch.device("cpu"), torch.float32)
    batch = pack([Item(np.ones(TOKENS, np.int32), SPEC.width)])
    plan = make_plan(np.array([TOKENS]), tile_shape(TOKENS, SPEC.heads, SPEC.kv_heads, itemsize=4))
    with torch.inference_mode():
        model(stage(batch, plan, torch.device("cpu")).packed)
    assert alive == [4 * TOKENS * (SPEC.width + 2 * SPEC.inner)] * SPEC.layers


@pytest.mark.parametrize(("family", "kind"), EIGHT_BITS)
@pytest.mark.parametrize("load_format", ["auto", "dummy"])
def test_weights_in_eight_bits_are_never_there_as_a_whole_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, kind: str, load_format: Literal["auto", "dummy"]
) -> None:
    """While a model is loaded no more than one layer has its products in full, so that small devices suffice."""
    folder = write_qwen3(tmp_path / "m", SPEC) if family == "qwen3" else write_encoder(tmp_path / "m", EncoderSpec())
    card, held = read_card(folder), []
    whole = weight_bytes(card, torch.float32)

    def noted(model: Any, *rest: Any) -> Any:
        replace = quantizing(model, *rest)

        def replace_and_note(names: Sequence[str]) -> None:
            held.append(sum(parameter.nbytes for parameter in model.parameters() if not parameter.is_meta))
            replace(names)

        return replace_and_note

    monkeypatch.setattr(build, "quantizing", noted)
    settings = ModelSettings(quantization=kind, load_format=load_format)
    model = build.build_model(card, settings, torch.device("cpu"), torch.float32, (), lambda *_: None)
    left = sum(parameter.nbytes for parameter in model.parameters())
    layer = (whole - left) / card.config["num_hidden_layers"]
    assert max(held) <= left + 1.01 * layer
    assert not [name for name, parameter in model.named_parameters() if parameter.is_meta]
    assert weight_bytes(card, torch.float32, kind) < 0.8 * whole


def test_loading_in_eight_bits_shows_all_bytes(tmp_path: Path) -> None:
    card = read_card(write_qwen3(tmp_path / "m", SPEC))
    seen: list[tuple[str, int, int]] = []
    settings = ModelSettings(quantization="int8")
    build.build_model(card, settings, torch.device("cpu"), torch.float32, (), lambda *step: seen.append(step))
    assert seen[-1][1:] == (weight_bytes(card, torch.float32),) * 2

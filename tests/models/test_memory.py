"""What a forward keeps alive while it runs: the memory that a token takes is that of its widest moment."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anydim.engine.packing import pack
from anydim.engine.staging import stage
from anydim.kernels import make_plan, plain_ops, tile_shape
from anydim.models.card import read_card
from anydim.models.qwen3 import Qwen3
from anydim.types import Item
from tests.checkpoints import Qwen3Spec, write_qwen3

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

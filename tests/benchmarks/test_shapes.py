"""The work that a shape needs is what torch counts in transformers' forward, less what the last layer does not need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel

from benchmarks import shapes

TEXTS, LENGTH = 3, 16


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[Any, int]]:
    """Module name -> operator -> FLOPs, as torch counts them."""
    folder = shapes.write("tiny", Path(tmp_path_factory.mktemp("shapes")))
    model = AutoModel.from_config(AutoConfig.from_pretrained(folder), attn_implementation="eager").eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(input_ids=torch.ones(TEXTS, LENGTH, dtype=torch.long), use_cache=False)
    return counter.get_flop_counts()


def _of(counts: dict[str, dict[Any, int]], ending: str, operator: str = "") -> int:
    found = [sums for name, sums in counts.items() if name.endswith(ending)]
    assert found, ending
    return sum(flops for sums in found for name, flops in sums.items() if operator in str(name))


def test_linear_work_is_transformers_products_less_the_rows_that_no_head_reads(counts: Any) -> None:
    whole = sum(_of(counts, f"layers.{layer}{part}") for layer in (0, 1) for part in _products())
    spared = sum(
        _of(counts, f"layers.1{part}") for part in _products() if "k_proj" not in part and "v_proj" not in part
    )
    expected = whole - spared * (LENGTH - 1) / LENGTH
    assert shapes.SHAPES["tiny"].work([LENGTH] * TEXTS).linear == pytest.approx(expected, rel=1e-12)


def test_attention_is_the_causal_half_of_transformers_and_one_row_of_the_last_layer(counts: Any) -> None:
    square = _of(counts, "layers.0.self_attn", "bmm")  # eager attention: scores and sum over values, LENGTH x LENGTH
    expected = square * (LENGTH + 1) / (2 * LENGTH) + square / LENGTH
    assert shapes.SHAPES["tiny"].work([LENGTH] * TEXTS).attention == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("name", "billions", "spared"), [("0.6b", 0.881, 3.1), ("4b", 7.267, 2.6), ("8b", 13.89, 2.7)])
def test_work_of_the_real_shapes_is_the_known_one(name: str, billions: float, spared: float) -> None:
    shape = shapes.SHAPES[name]
    a_token = 2 * shape.layers * shape.layer_weights
    assert a_token / 1e9 == pytest.approx(billions, rel=1e-3)
    long = shape.work([4096])
    assert 100 * (1 - long.linear / (4096 * a_token)) == pytest.approx(spared, abs=0.06)
    of_formula = 2 * shape.heads * 128 * 4096 * shape.layers * 4096
    assert long.attention == pytest.approx(of_formula, rel=0.04)  # the formula has no last layer of its own


def test_weights_are_those_that_transformers_allocates() -> None:
    shape = shapes.SHAPES["tiny"]
    config = AutoConfig.for_model(**shapes.config("tiny"))
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed_tokens" not in name]
    assert shape.weight_bytes(2) == 2 * sum(matrix.numel() for matrix in matrices)


def _products() -> list[str]:
    attention = [f".self_attn.{part}_proj" for part in "qkvo"]
    return [*attention, *(f".mlp.{part}_proj" for part in ("gate", "up", "down"))]

"""What a start has the library of products load is what forwards multiply by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anydim.types import Item
from tests.checkpoints import EncoderSpec, Qwen3Spec, write_encoder, write_qwen3
from tests.pipeline import CPU, Pipeline

MOST = 40


@pytest.fixture(params=["qwen3", "qwen3 with biases", "bert", "qwen3 in int8"])
def pipeline(request: pytest.FixtureRequest, tmp_path: Path) -> Pipeline:
    if request.param == "bert":
        return Pipeline(write_encoder(tmp_path / "model", EncoderSpec()))
    folder = write_qwen3(tmp_path / "model", Qwen3Spec(bias="biases" in request.param))
    return Pipeline(folder, quantization="int8" if "int8" in request.param else "none")


def watch(model: Any, seen: set[tuple[tuple[int, ...], bool, int]]) -> None:
    """Note the shape of each weight, whether there is a bias, and the rows."""
    product = model.feed.product

    def noted(x: Any, weight: Any, bias_O: Any) -> torch.Tensor:
        seen.add((tuple(weight.shape), bias_O is not None, x.shape[0]))
        found: torch.Tensor = product(x, weight, bias_O)
        return found

    def gelu(x: Any, weight: Any, bias_O: Any) -> torch.Tensor:
        return torch.nn.functional.gelu(noted(x, weight, bias_O))

    model.feed = replace(model.feed, product=noted, product_gelu=gelu)


def test_every_product_of_a_forward_is_among_those_that_a_start_multiplies(pipeline: Pipeline) -> None:
    forwards: set[tuple[tuple[int, ...], bool, int]] = set()
    multiplied: set[tuple[tuple[int, ...], bool, int]] = set()
    watch(pipeline.model, forwards)
    pipeline.run([Item(np.arange(5, 5 + length, dtype=np.int32), 32) for length in (3, 9, 20)])
    watch(pipeline.model, multiplied)
    with torch.inference_mode():
        pipeline.runner._forward.multiply(MOST, CPU)
    assert {kind[:2] for kind in forwards} == {kind[:2] for kind in multiplied}
    assert {rows for *_, rows in multiplied} == set(range(1, MOST + 1))

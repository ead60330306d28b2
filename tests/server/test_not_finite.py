"""Inputs whose vectors leave the range of float16: computed again in float32, and told alone where that fails too."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from tests.checkpoints import Qwen3Spec, write_qwen3
from tests.server.process import ServerProcess, serving
from tests.shelf import load_reference
from tests.vocabularies import write_qwen_like

OVERFLOWS: Final = "~"  # its states are within float32 and beyond float16
HOPELESS: Final = "^"  # its embedding is infinite
GOOD: Final = ["a text", "another text", "and a third one"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("overflowing")
    tokenizer = write_qwen_like(root / "tokenizer.json")
    folder = write_qwen3(root / "model", Qwen3Spec(dtype=torch.float16), tokenizer)
    weights = load_file(folder / "model.safetensors")
    (name,) = [name for name in weights if name.endswith("embed_tokens.weight")]
    encode = Tokenizer.from_file(str(tokenizer)).encode
    large_D = torch.finfo(torch.float16).max * torch.sign(weights[name][0].float())
    weights[name][encode(OVERFLOWS, add_special_tokens=False).ids[0]] = large_D.half()
    weights[name][encode(HOPELESS, add_special_tokens=False).ids[0]] = torch.inf
    for each in weights:
        if each.endswith("o_proj.weight"):
            weights[each] *= 30
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ServerProcess]:
    with serving(folder, "--dtype", "float16", "--force-float16") as server:
        yield server


def vectors(answer: tuple[int, Any]) -> np.ndarray:
    assert answer[0] == 200, answer
    return np.array([row["embedding"] for row in answer[1]["data"]], np.float32)


def test_a_vector_that_overflows_is_computed_in_float32(server: ServerProcess, folder: Path) -> None:
    texts = [f"a text {OVERFLOWS} and more", f"{OVERFLOWS} again", *GOOD]
    found = vectors(server.post("/v1/embeddings", {"input": texts}))
    expected = load_reference(folder).encode(texts, convert_to_numpy=True)
    assert np.abs(found[:2] - expected[:2]).max() < 1e-4
    assert (found * expected).sum(axis=1).min() > 0.999
    server.until(lambda: server.metrics()["anydim_engine_upcast_texts_total"] >= 2)


def test_an_input_that_stays_infinite_fails_alone(server: ServerProcess) -> None:
    expected = vectors(server.post("/v1/embeddings", {"input": GOOD}))
    with ThreadPoolExecutor(8) as pool:
        bad = [pool.submit(server.post, "/v1/embeddings", {"input": [f"{number} {HOPELESS}"]}) for number in range(10)]
        good = [pool.submit(server.post, "/v1/embeddings", {"input": GOOD}) for _ in range(10)]
    assert {answer.result()[0] for answer in bad} == {500}
    assert "no finite vector" in bad[0].result()[1]["error"]["message"]
    assert all((vectors(answer.result()) * expected).sum(axis=1).min() > 0.9999 for answer in good)

"""Weights from every layout of files; and broken ones, each error naming the file or tensor at fault."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from anydim.cli.checkpoint import read_checkpoint
from anydim.errors import ModelError
from anydim.models.card import read_card
from tests.checkpoints import (
    EncoderSpec,
    Qwen3Spec,
    add_tensor,
    edit_json,
    rename_tensors,
    write_encoder,
    write_json,
    write_qwen3,
)
from tests.pipeline import Pipeline

TINY = Qwen3Spec(width=32, layers=2, heads=2, kv_heads=1, inner=40, vocab=50)
IDS = [np.arange(1, 12, dtype=np.int32), np.array([3], dtype=np.int32)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole Qwen3 checkpoint in one file."""
    return write_qwen3(tmp_path / "model", TINY)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """The same in several files with an index."""
    return write_qwen3(tmp_path / "sharded", replace(TINY, shard_size="20KB"))


def shards(folder: Path) -> list[Path]:
    """The safetensors files of a folder."""
    return sorted(folder.glob("model-*.safetensors"))


def refused(folder: Path, *names: str) -> str:
    """Loading fails with a ModelError that names all of these."""
    with pytest.raises(ModelError) as caught:
        Pipeline(folder)
    assert all(name in caught.value.message for name in names), caught.value.message
    return caught.value.message


def test_every_layout_gives_the_same_vectors(folder: Path, sharded: Path, tmp_path: Path) -> None:
    expected = Pipeline(folder).vectors(IDS)
    assert len(shards(sharded)) > 2
    prefixed = write_qwen3(tmp_path / "prefixed", replace(TINY, prefixed=True))
    for other in (sharded, prefixed):
        np.testing.assert_array_equal(Pipeline(other).vectors(IDS), expected)


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta"])
def test_encoder_prefixes(tmp_path: Path, kind: str) -> None:
    bare = write_encoder(tmp_path / "bare", EncoderSpec(kind=kind))
    prefixed = write_encoder(tmp_path / "prefixed", EncoderSpec(kind=kind, prefixed=True))
    np.testing.assert_array_equal(Pipeline(bare).vectors(IDS), Pipeline(prefixed).vectors(IDS))


def test_tensors_that_no_forward_needs_are_ignored(folder: Path) -> None:
    expected = Pipeline(folder).vectors(IDS)
    add_tensor(folder, "lm_head.weight", torch.zeros(50, 32))
    add_tensor(folder, "layers.0.self_attn.rotary_emb.inv_freq", torch.zeros(8))
    np.testing.assert_array_equal(Pipeline(folder).vectors(IDS), expected)


def test_stored_bytes_are_the_files(folder: Path, sharded: Path) -> None:
    assert read_checkpoint(folder).stored_bytes == (folder / "model.safetensors").stat().st_size
    assert read_checkpoint(sharded).stored_bytes == sum(path.stat().st_size for path in shards(sharded))


def test_a_missing_file(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "only safetensors" not in refused(folder, str(folder), "has no model.safetensors")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.gguf", "weights.pt"])
def test_other_formats_are_named_and_never_read(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    refused(folder, str(folder), name, "only safetensors are read")


def test_a_missing_shard(sharded: Path) -> None:
    lost = shards(sharded)[1]
    lost.unlink()
    refused(sharded, str(lost), "is missing")


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_a_truncated_file(folder: Path, size: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    refused(folder, str(file), "damaged")


def test_a_truncated_shard(sharded: Path) -> None:
    last = shards(sharded)[-1]
    last.write_bytes(last.read_bytes()[:-10])
    refused(sharded, str(last), "damaged")


def test_a_file_that_is_no_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused(folder, str(folder / "model.safetensors"), "damaged")


@pytest.mark.parametrize(
    "name",
    ["embed_tokens.weight", "norm.weight", "layers.1.self_attn.k_proj.weight", "layers.0.mlp.up_proj.weight"],
)
def test_a_missing_tensor(folder: Path, name: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors")
    refused(folder, name)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("embed_tokens.weight", (49, 32)),
        ("norm.weight", (31,)),
        ("layers.0.self_attn.q_norm.weight", (8,)),
        ("layers.1.self_attn.o_proj.weight", (32, 31)),
        ("layers.1.self_attn.k_proj.weight", (17, 32)),
        ("layers.1.self_attn.v_proj.weight", (16, 30)),
        ("layers.0.mlp.gate_proj.weight", (20, 32)),
        ("layers.0.mlp.up_proj.weight", (60, 32)),
    ],
)
def test_a_tensor_of_another_shape(folder: Path, name: str, shape: tuple[int, ...]) -> None:
    add_tensor(folder, name, torch.zeros(shape))
    refused(folder, name, str(folder / "model.safetensors"))


def test_halves_of_a_fused_parameter_that_only_fit_together(folder: Path) -> None:
    """Too long a gate and too short an up fill the fused block to its end, each in the other's place."""
    add_tensor(folder, "layers.0.mlp.gate_proj.weight", torch.zeros(50, 32))
    add_tensor(folder, "layers.0.mlp.up_proj.weight", torch.zeros(30, 32))
    refused(folder, "layers.0.mlp.gate_proj.weight")


def test_an_index_that_names_a_tensor_the_shard_lacks(sharded: Path) -> None:
    index = sharded / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    weight_map["norm.weight"] = weight_map["embed_tokens.weight"]
    write_json(index, {"weight_map": weight_map})
    refused(sharded, "norm.weight", weight_map["norm.weight"])


@pytest.mark.parametrize("content", [{}, {"weight_map": []}, {"weight_map": None}])
def test_an_index_without_a_map(sharded: Path, content: dict[str, object]) -> None:
    write_json(sharded / "model.safetensors.index.json", content)
    refused(sharded, "model.safetensors.index.json", "weight_map")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6}}, "'yarn'"),
        ({"rope_parameters": ..., "rope_scaling": {"type": "linear", "factor": 2.0}}, "'linear'"),
        ({"use_sliding_window": True, "sliding_window": 128}, "sliding"),
        ({"hidden_act": "gelu"}, "'gelu'"),
    ],
)
def test_what_the_forward_does_not_do_is_refused(folder: Path, change: dict[str, object], words: str) -> None:
    edit_json(folder / "config.json", **change)
    refused(folder, words, "not supported")


def test_old_spelling_of_rope_theta(folder: Path) -> None:
    expected = Pipeline(folder).vectors(IDS)
    edit_json(folder / "config.json", rope_parameters=..., rope_theta=1e6, rope_scaling=None)
    np.testing.assert_array_equal(Pipeline(folder).vectors(IDS), expected)


@pytest.mark.parametrize(("key", "value"), [("hidden_act", "swish9"), ("position_embedding_type", "relative_key")])
def test_encoder_features_that_are_refused(tmp_path: Path, key: str, value: str) -> None:
    folder = write_encoder(tmp_path / "bert", EncoderSpec())
    edit_json(folder / "config.json", **{key: value})
    refused(folder, repr(value), "not supported")


@pytest.mark.parametrize("rename", [lambda name: f"base.{name}", str.upper])
def test_unknown_names_say_which_prefixes_were_tried(folder: Path, rename: Callable[[str], str]) -> None:
    rename_tensors(folder, rename)
    refused(folder, "embed_tokens.weight", "model.")


def test_progress_reaches_its_total(folder: Path) -> None:
    from anydim.config import ModelSettings
    from anydim.models.build import build_model

    seen: list[tuple[str, int, int]] = []
    build_model(
        read_card(folder), ModelSettings(), torch.device("cpu"), torch.float32, (), lambda *step: seen.append(step)
    )
    done = [step[1] for step in seen]
    assert done == sorted(done)
    assert seen[-1][1] == seen[-1][2] > 0

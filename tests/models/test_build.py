"""Devices, precisions, dummy weights and rotations: what the settings mean, and what they refuse."""

from pathlib import Path

import numpy as np
import pytest
import torch

from anydim.errors import ConfigError
from anydim.models.build import resolve_device, resolve_dtype, weight_bytes
from anydim.models.card import Family
from tests.checkpoints import EncoderSpec, Qwen3Spec, write_encoder, write_qwen3
from tests.pipeline import CPU, Pipeline

IDS = [np.arange(1, 30, dtype=np.int32), np.array([4], dtype=np.int32)]
WIDE = 30


def test_auto_precision_is_bfloat16_only_where_the_cpu_is_good_at_it() -> None:
    dtype = resolve_dtype("auto", CPU, Family.QWEN3)
    is_good = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert dtype == (torch.bfloat16 if is_good else torch.float32)


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_a_model_may_be_loaded_inside_inference_mode(tmp_path: Path, quantization: str) -> None:
    """Threads read the weights, and what a caller's mode makes cannot be filled outside of it."""
    folder = write_qwen3(tmp_path / "qwen3", Qwen3Spec())
    with torch.inference_mode():
        inside = Pipeline(folder, quantization=quantization)
    np.testing.assert_array_equal(inside.vectors(IDS), Pipeline(folder, quantization=quantization).vectors(IDS))
    assert not any(parameter.is_inference() for parameter in inside.model.parameters())  # type: ignore[attr-defined]


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_named_precisions(family: Family, name: str) -> None:
    assert resolve_dtype(name, CPU, family) == getattr(torch, name)


def test_float16_for_qwen3_needs_force() -> None:
    with pytest.raises(ConfigError, match=r"float16 overflows in Qwen3.*--force-float16"):
        resolve_dtype("float16", CPU, Family.QWEN3)
    assert resolve_dtype("float16", CPU, Family.QWEN3, force_float16=True) == torch.float16


@pytest.mark.parametrize("family", [Family.BERT, Family.ROBERTA])
def test_float16_for_encoders_is_fine(family: Family) -> None:
    assert resolve_dtype("float16", CPU, family) == torch.float16


def test_auto_is_never_float16() -> None:
    assert resolve_dtype("auto", CPU, Family.BERT) != torch.float16


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "cpu:one", "vulkan", "meta", "xpu"])
def test_unknown_devices_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--device must be"):
        resolve_device(name)


def test_a_cuda_device_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"--device cuda:99"):
        resolve_device("cuda:99")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_of_the_weights_are_known_before_they_are_loaded(tmp_path: Path, dtype: torch.dtype) -> None:
    for folder in (write_qwen3(tmp_path / "qwen3", Qwen3Spec()), write_encoder(tmp_path / "bert", EncoderSpec())):
        loaded = Pipeline(folder, CPU, dtype)
        assert weight_bytes(loaded.card, dtype) == sum(parameter.nbytes for parameter in loaded.model.parameters())


def test_known_devices() -> None:
    assert resolve_device("cpu") == CPU
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_stay_near_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = write_encoder(tmp_path / "bert", EncoderSpec())
    sixteen = Pipeline(folder, dtype=dtype).vectors(IDS)
    assert sixteen.dtype == np.float32
    assert ((sixteen * Pipeline(folder).vectors(IDS)).sum(axis=1) > 0.999).all()


def test_dummy_weights_need_no_weights(tmp_path: Path) -> None:
    folder = write_qwen3(tmp_path / "qwen3", Qwen3Spec())
    (folder / "model.safetensors").unlink()
    first, second = (Pipeline(folder, load_format="dummy").vectors(IDS) for _ in range(2))
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(first, second)
    assert abs(float(first[0] @ first[1])) < 0.99


def test_dummy_encoder(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "bert", EncoderSpec())
    (folder / "model.safetensors").unlink()
    assert np.isfinite(Pipeline(folder, load_format="dummy").vectors(IDS)).all()

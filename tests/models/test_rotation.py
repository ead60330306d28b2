"""The file behind `--projection`: an orthogonal matrix that says for which model it was fitted."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from anydim.errors import ModelError
from anydim.models.card import Family, ModelCard, read_card
from anydim.models.identity import identity_of
from anydim.models.rotation import Rotation, load_rotation, read_rotation, write_rotation
from anydim.types import Pooling
from tests.checkpoints import EncoderSpec, Qwen3Spec, write_encoder, write_qwen3

CPU = torch.device("cpu")
WIDE = 30
CARD = ModelCard(
    name="thirty",
    folder=Path("nowhere"),
    family=Family.BERT,
    width=WIDE,
    max_tokens=8,
    vocab_size=9,
    pooling=Pooling.MEAN,
)


def rotation_file(folder: Path, rotation_DD: torch.Tensor, name: str = "rotation") -> str:
    """A rotation file as `--projection` reads it."""
    save_file({name: rotation_DD}, folder / "rotation.safetensors")
    return str(folder / "rotation.safetensors")


def orthogonal(width: int) -> torch.Tensor:
    """A random orthogonal matrix."""
    return torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(1)))[0].contiguous()


def test_no_rotation() -> None:
    assert load_rotation(None, CARD, CPU) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_rotation_is_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    stored = torch.eye(WIDE)[torch.randperm(WIDE)] if dtype is torch.bfloat16 else orthogonal(WIDE)
    loaded = load_rotation(rotation_file(tmp_path, stored.to(dtype)), CARD, CPU)
    assert loaded is not None
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(loaded, stored)


@pytest.mark.parametrize(
    ("rotation_DD", "words"),
    [
        (torch.eye(WIDE + 1), r"shape \(31, 31\)"),
        (torch.eye(WIDE)[:10].contiguous(), r"shape \(10, 30\)"),
        (torch.eye(WIDE) * 1.01, "not orthogonal"),
        (torch.zeros(WIDE, WIDE), "not orthogonal"),
        (torch.full((WIDE, WIDE), float("nan")), "not orthogonal"),
    ],
)
def test_matrices_that_are_no_rotation(tmp_path: Path, rotation_DD: torch.Tensor, words: str) -> None:
    file = rotation_file(tmp_path, rotation_DD)
    with pytest.raises(ModelError, match=words) as caught:
        load_rotation(file, CARD, CPU)
    assert file in caught.value.message


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all"])
def test_a_broken_rotation_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "rotation.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load_rotation(str(file), CARD, CPU)
    assert str(file) in caught.value.message


def test_a_file_without_a_rotation_is_named(tmp_path: Path) -> None:
    file = rotation_file(tmp_path, orthogonal(WIDE), name="matrix")
    with pytest.raises(ModelError) as caught:
        load_rotation(file, CARD, CPU)
    assert file in caught.value.message


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "new" / "rotation.safetensors"
    card = read_card(write_encoder(tmp_path / "model", EncoderSpec()))
    written = Rotation(orthogonal(card.width), identity_of(card), {"method": "svd", "documents": 5})
    write_rotation(file, written)
    found = read_rotation(file)
    torch.testing.assert_close(found.rotation_DD, written.rotation_DD)
    assert found.identity == written.identity
    assert found.facts == written.facts
    assert [path.name for path in file.parent.iterdir()] == ["rotation.safetensors"]
    loaded = load_rotation(str(file), card, CPU)
    assert loaded is not None
    torch.testing.assert_close(loaded, written.rotation_DD)


def test_a_file_for_another_model_is_refused(tmp_path: Path) -> None:
    mine, other = (
        read_card(write_encoder(tmp_path / name, EncoderSpec(scale=scale)), name)
        for name, scale in (("mine", 0.1), ("other", 0.2))
    )
    file = tmp_path / "rotation.safetensors"
    write_rotation(file, Rotation(orthogonal(mine.width), identity_of(mine)))
    assert load_rotation(str(file), mine, CPU) is not None
    with pytest.raises(ModelError, match=r"was fitted for mine and other weights than these of other") as caught:
        load_rotation(str(file), other, CPU)
    assert str(file) in caught.value.message
    assert load_rotation(str(file), other, CPU, check_model=False) is not None


def test_a_model_is_known_by_its_tensors_and_not_by_its_folder(tmp_path: Path) -> None:
    plain, sharded, prefixed = (
        identity_of(read_card(write_qwen3(tmp_path / name, spec), name))
        for name, spec in (
            ("plain", Qwen3Spec()),
            ("sharded", Qwen3Spec(shard_size="100KB")),
            ("prefixed", Qwen3Spec(prefixed=True)),
        )
    )
    assert plain.is_same(sharded)
    assert plain.is_same(prefixed)
    assert plain != sharded  # their names differ


def test_another_pooling_is_another_model(tmp_path: Path) -> None:
    mean, cls = (
        identity_of(read_card(write_encoder(tmp_path / pooling, EncoderSpec(pooling=pooling))))
        for pooling in ("mean", "cls")
    )
    assert mean.digest == cls.digest
    assert not mean.is_same(cls)


def test_a_file_that_names_no_model_is_taken_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert load_rotation(rotation_file(tmp_path, orthogonal(WIDE)), CARD, CPU) is not None
    assert "does not say which model it was fitted for; it is taken for thirty as it is" in caplog.text

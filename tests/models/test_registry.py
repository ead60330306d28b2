"""From the MODEL of a command line to a card: folders, names that are none, and the hub when it cannot be reached."""

from pathlib import Path
from typing import Any

import pytest

from anydim.config import ModelSettings
from anydim.errors import ModelError
from anydim.models.card import Family, ModelCard
from anydim.models.registry import cache_folder, find_model
from anydim.models.starter import STARTER_NAME
from tests.checkpoints import EncoderSpec, Qwen3Spec, write_encoder, write_qwen3


def find(**settings: Any) -> ModelCard:
    """The card of these settings."""
    return find_model(ModelSettings(**settings), lambda *_: None)


def test_a_local_folder(tmp_path: Path) -> None:
    card = find(model=str(write_qwen3(tmp_path / "my-model", Qwen3Spec(layers=1))))
    assert (card.name, card.family, card.width) == ("my-model", Family.QWEN3, 64)


def test_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_encoder(tmp_path / "here", EncoderSpec())
    monkeypatch.chdir(tmp_path)
    assert find(model="here").name == find(model="./here").name == "here"
    monkeypatch.chdir(tmp_path / "here")
    assert find(model=".").name == "here"


def test_a_folder_below_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_encoder(tmp_path / "mine", EncoderSpec())
    assert find(model="~/mine").name == "mine"


@pytest.mark.parametrize("model", ["./missing", "/nowhere/missing", "~/missing", "../missing"])
def test_a_folder_that_is_missing_is_not_looked_for_on_the_hub(model: str) -> None:
    with pytest.raises(ModelError, match="is not a folder") as caught:
        find(model=model)
    assert model in caught.value.message


def test_a_hub_model_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match=r"Qwen/Qwen3-Embedding-0\.6B is not in the local cache"):
        find(model="Qwen/Qwen3-Embedding-0.6B")


@pytest.mark.parametrize("model", ["a/b/c", "spaces in it/x", "--flag", ""])
def test_names_that_are_no_hub_ids(model: str) -> None:
    with pytest.raises(ModelError):
        find(model=model)


def test_the_starter_is_converted_once_into_the_cache(starter_folder: Path) -> None:
    card = find(cache=str(starter_folder.parent))
    assert card.name == STARTER_NAME
    assert card.folder == starter_folder
    assert (card.width, card.max_tokens) == (384, 512)


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder(ModelSettings()) == tmp_path / ".cache" / "anydim"
    assert cache_folder(ModelSettings(cache="~/c")) == tmp_path / "c"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(ModelSettings()) == tmp_path / "xdg" / "anydim"

"""A whole request through intake: what comes out as Items, and in which order things are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from anydim.config import ModelSettings
from anydim.errors import ConfigError, InvalidRequest, ModelError, TooLong
from anydim.intake.intake import Intake
from anydim.intake.request import EmbedRequest, InputType, Truncate
from anydim.models.card import read_card
from anydim.types import OutputDtype
from tests.checkpoints import QUERY_PROMPT, Qwen3Spec, edit_json, write_qwen3
from tests.shelf import Shelf


@pytest.fixture(scope="module")
def folder(shelf: Shelf) -> Path:
    """A Qwen3 look-alike, 64 wide, 512 positions."""
    return shelf.folder("qwen3")


@pytest.fixture(scope="module")
def file(folder: Path) -> Tokenizer:
    """Its tokenizer in Hugging Face's reading."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def end(file: Tokenizer) -> int:
    """The final token of every text."""
    return int(file.token_to_id("<|endoftext|>"))


@pytest.fixture(scope="module")
def intake(folder: Path) -> Intake:
    """Its intake with default settings."""
    return Intake.of(read_card(folder), ModelSettings())


def with_settings(folder: Path, **settings: Any) -> Intake:
    """An intake with other settings."""
    return Intake.of(read_card(folder), ModelSettings(**settings))


def test_items_carry_what_was_asked(intake: Intake) -> None:
    request = EmbedRequest(
        inputs=["one", "two words"], output_dim=[32, 64], output_dtype=OutputDtype.INT8, normalize=False
    )
    items = intake.prepare(request)
    assert [item.dim for item in items] == [32, 64]
    assert all(item.dtype is OutputDtype.INT8 and not item.normalize for item in items)
    assert all(item.ids.dtype == np.int32 for item in items)


def test_prompt_and_text_are_tokenised_together(intake: Intake, file: Tokenizer) -> None:
    (item,) = intake.prepare(EmbedRequest(inputs=["what is a panda?"], input_type=InputType.QUERY))
    expected = file.encode(QUERY_PROMPT + "what is a panda?").ids
    assert item.ids.tolist() == expected


def test_no_input_is_refused(intake: Intake) -> None:
    with pytest.raises(InvalidRequest, match="input must hold at least one text") as caught:
        intake.prepare(EmbedRequest(inputs=[]))
    assert caught.value.param == "input"


def test_an_empty_text_has_the_final_token(intake: Intake, end: int) -> None:
    assert intake.prepare(EmbedRequest(inputs=[""]))[0].ids.tolist() == [end]


def test_dimensions_are_refused_before_anything_is_tokenised(intake: Intake) -> None:
    with pytest.raises(InvalidRequest, match=r"output_dim must be a multiple of 32 between 32 and 64, got 50"):
        intake.prepare(EmbedRequest(inputs=["\ud800", "x" * 10_000], output_dim=50))


@pytest.mark.parametrize("fields", [{"instruction": "a"}, {"prompt_name": "query"}, {"input_type": InputType.DOCUMENT}])
def test_token_ids_take_no_prompt(folder: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=f"{next(iter(fields))} cannot be combined with token ids"):
        with_settings(folder, token_ids="model").prepare(EmbedRequest(inputs=[[1, 2]], **fields))


def test_token_ids_are_refused_by_default(intake: Intake) -> None:
    with pytest.raises(InvalidRequest, match="token ids are not accepted"):
        intake.prepare(EmbedRequest(inputs=[[1, 2]]))


def test_token_ids_of_the_model(folder: Path, end: int) -> None:
    items = with_settings(folder, token_ids="model").prepare(EmbedRequest(inputs=[[78], [end]], output_dim=32))
    assert [item.ids.tolist() for item in items] == [[78, end], [end]]


@pytest.mark.parametrize("truncate", [Truncate.END, Truncate.START])
def test_a_lower_limit_cuts_and_keeps_the_final_token(folder: Path, end: int, truncate: Truncate) -> None:
    (item,) = with_settings(folder, max_input_tokens=5).prepare(
        EmbedRequest(inputs=["a b c d e f g"], truncate=truncate)
    )
    assert len(item.ids) == 5
    assert item.ids[-1] == end


def test_long_texts_are_refused_unless_cutting_is_asked_for(folder: Path) -> None:
    with pytest.raises(TooLong, match=r"input\[1\] has [0-9]+ tokens, but the model reads 5 tokens"):
        with_settings(folder, max_input_tokens=5).prepare(EmbedRequest(inputs=["a", "a b c d e f g"]))


def test_the_models_own_limit_holds(intake: Intake) -> None:
    (item,) = intake.prepare(EmbedRequest(inputs=["word " * 2000], truncate=Truncate.END))
    assert len(item.ids) == 512


@pytest.mark.parametrize("limit", [513, -1, 1])
def test_limits_that_the_model_cannot_have(folder: Path, limit: int) -> None:
    with pytest.raises(ConfigError, match="--max-input-tokens"):
        with_settings(folder, max_input_tokens=limit)


def test_a_limit_of_zero_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"--max-input-tokens must be between 1 and 512, got 0"):
        with_settings(folder, max_input_tokens=0)


def test_defaults_come_from_the_settings(folder: Path) -> None:
    assert with_settings(folder).prepare(EmbedRequest(inputs=["a"]))[0].dim == 64
    assert with_settings(folder, default_dim="32").prepare(EmbedRequest(inputs=["a"]))[0].dim == 32
    assert with_settings(folder, dim_step=7).prepare(EmbedRequest(inputs=["a"], dimensions=21))[0].dim == 21
    with pytest.raises(ConfigError, match="--default-dim"):
        with_settings(folder, default_dim="50")


def test_a_folder_without_tokenizer(tmp_path: Path) -> None:
    bare = write_qwen3(tmp_path / "bare", Qwen3Spec(layers=1))
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        with_settings(bare)


def test_a_tokenizer_without_special_tokens_refuses_empty_texts(shelf: Shelf, tmp_path: Path) -> None:
    bare = write_qwen3(tmp_path / "bare", Qwen3Spec(layers=1), shelf.tokenizer("qwen-like"))
    edit_json(bare / "tokenizer.json", post_processor=None)
    with pytest.raises(InvalidRequest, match=r"input\[1\] holds no token"):
        with_settings(bare).prepare(EmbedRequest(inputs=["a", ""]))


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_chunks_are_the_request_in_parts(intake: Intake, size: int) -> None:
    request = EmbedRequest(inputs=["a", "b c", "", "d e f", "g"], output_dim=[32, 64, 32, 64, 32])
    chunks = list(intake.chunks(request, size))
    assert all(len(chunk) == size for chunk in chunks[:-1])
    parts = [(item.ids.tolist(), item.dim) for chunk in chunks for item in chunk]
    assert parts == [(item.ids.tolist(), item.dim) for item in intake.prepare(request)]


@pytest.mark.parametrize(
    ("settings", "wrong", "words"),
    [
        ({"max_input_tokens": 5}, "one two three four five six", "the model reads 5 tokens"),
        ({"max_input_tokens": 5}, "x" * 1_000_000, "the model reads 5 tokens"),
        ({}, "\udfff", "lone surrogate"),
        ({"token_ids": "model"}, [], "is an empty list of token ids"),
        ({"token_ids": "model"}, [-1], "has a token id outside 0 to"),
        ({"token_ids": "model", "max_input_tokens": 3}, [7] * 9, "the model reads 3 tokens"),
    ],
)
def test_errors_in_a_later_chunk_name_the_input_of_the_request(
    folder: Path, settings: dict[str, Any], wrong: Any, words: str
) -> None:
    fine = "a" if isinstance(wrong, str) else [7]
    chunks = with_settings(folder, **settings).chunks(EmbedRequest(inputs=[fine, fine, fine, wrong]), 2)
    assert len(next(chunks)) == 2
    with pytest.raises(InvalidRequest, match=rf"input\[3\] .*{words}") as caught:
        next(chunks)
    assert caught.value.param == "input[3]"


def test_fields_are_refused_before_the_first_chunk(intake: Intake) -> None:
    with pytest.raises(InvalidRequest, match="output_dim must be"):
        intake.chunks(EmbedRequest(inputs=["a", "b"], output_dim=50), 1)


def test_tokens_that_the_model_has_no_embedding_for_are_refused(shelf: Shelf, tmp_path: Path) -> None:
    """Some folders' tokenizers know more tokens than config.json has rows."""
    small = write_qwen3(tmp_path / "small", Qwen3Spec(layers=1, vocab=601), shelf.tokenizer("qwen-like"))
    intake = with_settings(small)
    assert len(intake.prepare(EmbedRequest(inputs=["plain text"]))) == 1
    with pytest.raises(InvalidRequest, match=r"input\[1\] spells out a token"):
        intake.prepare(EmbedRequest(inputs=["a", "b <|im_start|>"]))

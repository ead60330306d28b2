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
from tests.checkpoints import QUERY_PROMPT
from tests.shelf import Shelf


@pytest.fixture(scope="module")
def folder(shelf: Shelf) -> Path:
    """A folder with Qwen3's real tokenizer, 48 wide, 512 positions."""
    return shelf.folder("qwen3-real-vocabulary")


@pytest.fixture(scope="module")
def intake(folder: Path) -> Intake:
    """Its intake with default settings."""
    return Intake.of(read_card(folder), ModelSettings())


def with_settings(folder: Path, **settings: Any) -> Intake:
    """An intake with other settings."""
    return Intake.of(read_card(folder), ModelSettings(**settings))


def test_items_carry_what_was_asked(intake: Intake) -> None:
    request = EmbedRequest(
        inputs=["one", "two words"], output_dim=[32, 48], output_dtype=OutputDtype.INT8, normalize=False
    )
    items = intake.prepare(request)
    assert [item.dim for item in items] == [32, 48]
    assert all(item.dtype is OutputDtype.INT8 and not item.normalize for item in items)
    assert all(item.ids.dtype == np.int32 for item in items)


def test_prompt_and_text_are_tokenised_together(intake: Intake, qwen3_tokenizer: Path) -> None:
    (item,) = intake.prepare(EmbedRequest(inputs=["what is a panda?"], input_type=InputType.QUERY))
    expected = Tokenizer.from_file(str(qwen3_tokenizer)).encode(QUERY_PROMPT + "what is a panda?").ids
    assert item.ids.tolist() == expected


def test_no_input_is_refused(intake: Intake) -> None:
    with pytest.raises(InvalidRequest, match="input must hold at least one text") as caught:
        intake.prepare(EmbedRequest(inputs=[]))
    assert caught.value.param == "input"


def test_an_empty_text_has_the_final_token(intake: Intake) -> None:
    assert intake.prepare(EmbedRequest(inputs=[""]))[0].ids.tolist() == [151643]


def test_dimensions_are_refused_before_anything_is_tokenised(intake: Intake) -> None:
    with pytest.raises(InvalidRequest, match=r"output_dim must be a multiple of 32 between 32 and 32, or 48, got 50"):
        intake.prepare(EmbedRequest(inputs=["\ud800", "x" * 10_000], output_dim=50))


@pytest.mark.parametrize(
    "fields", [{"instruction": "a"}, {"prompt_name": "query"}, {"input_type": InputType.DOCUMENT}]
)
def test_token_ids_take_no_prompt(folder: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=f"{next(iter(fields))} cannot be combined with token ids"):
        with_settings(folder, token_ids="model").prepare(EmbedRequest(inputs=[[1, 2]], **fields))


def test_token_ids_are_refused_by_default(intake: Intake) -> None:
    with pytest.raises(InvalidRequest, match="token ids are not accepted"):
        intake.prepare(EmbedRequest(inputs=[[1, 2]]))


def test_token_ids_of_the_model(folder: Path) -> None:
    items = with_settings(folder, token_ids="model").prepare(EmbedRequest(inputs=[[785], [151643]], output_dim=32))
    assert [item.ids.tolist() for item in items] == [[785, 151643], [151643]]


@pytest.mark.parametrize("truncate", [Truncate.END, Truncate.START])
def test_a_lower_limit_cuts_and_keeps_the_final_token(folder: Path, truncate: Truncate) -> None:
    (item,) = with_settings(folder, max_input_tokens=5).prepare(EmbedRequest(inputs=["a b c d e f g"], truncate=truncate))
    assert len(item.ids) == 5
    assert item.ids[-1] == 151643


def test_long_texts_are_refused_unless_cutting_is_asked_for(folder: Path) -> None:
    with pytest.raises(TooLong, match=r"input\[1\] has 8 tokens, but the model reads 5 tokens"):
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
    assert with_settings(folder).prepare(EmbedRequest(inputs=["a"]))[0].dim == 48
    assert with_settings(folder, default_dim="32").prepare(EmbedRequest(inputs=["a"]))[0].dim == 32
    assert with_settings(folder, dim_step=7).prepare(EmbedRequest(inputs=["a"], dimensions=21))[0].dim == 21
    with pytest.raises(ConfigError, match="--default-dim"):
        with_settings(folder, default_dim="50")


def test_a_folder_without_tokenizer(shelf: Shelf, tmp_path: Path) -> None:
    from tests.checkpoints import Qwen3Spec, write_qwen3

    bare = write_qwen3(tmp_path / "bare", Qwen3Spec(layers=1))
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        with_settings(bare)


def test_a_tokenizer_without_special_tokens_refuses_empty_texts(tmp_path: Path) -> None:
    from tests.checkpoints import Qwen3Spec, write_qwen3
    from tests.qwen_tokenizer import VOCAB_SIZE, write_qwen3_tokenizer

    file = write_qwen3_tokenizer(tmp_path / "tokenizer.json", embedding=False)
    bare = write_qwen3(tmp_path / "bare", Qwen3Spec(layers=1, vocab=VOCAB_SIZE, width=8), file)
    with pytest.raises(InvalidRequest, match=r"input\[1\] holds no token"):
        with_settings(bare, dim_step=4).prepare(EmbedRequest(inputs=["a", ""]))

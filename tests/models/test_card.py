"""What a folder's own files say: widths, limits, prompts, pooling; and what is refused, each time naming the file."""

from pathlib import Path
from typing import Any

import pytest

from anydim.errors import ModelError
from anydim.models.card import Family, read_card
from anydim.types import Pooling
from tests.checkpoints import QUERY_PROMPT, edit_json, write_json

QWEN3 = {
    "architectures": ["Qwen3ForCausalLM"],
    "hidden_size": 1024,
    "vocab_size": 151669,
    "max_position_embeddings": 32768,
    "model_type": "qwen3",
}
XLM_ROBERTA = {
    "architectures": ["XLMRobertaModel"],
    "hidden_size": 384,
    "vocab_size": 250037,
    "max_position_embeddings": 514,
    "pad_token_id": 1,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Qwen3 embedding folder without weights."""
    write_json(tmp_path / "config.json", QWEN3)
    prompts = {"prompts": {"query": QUERY_PROMPT, "document": ""}, "default_prompt_name": None}
    write_json(tmp_path / "config_sentence_transformers.json", prompts)
    write_json(tmp_path / "tokenizer_config.json", {"model_max_length": 131072})
    write_modules(tmp_path, "Transformer", "Pooling", "Normalize")
    (tmp_path / "1_Pooling").mkdir()
    write_json(
        tmp_path / "1_Pooling" / "config.json", {"pooling_mode_lasttoken": True, "pooling_mode_cls_token": False}
    )
    return tmp_path


def write_modules(folder: Path, *kinds: str) -> None:
    """A modules.json with these module classes."""
    paths = {"Pooling": "1_Pooling", "Transformer": ""}
    rows = [{"path": paths.get(kind, f"9_{kind}"), "type": f"sentence_transformers.models.{kind}"} for kind in kinds]
    write_json(folder / "modules.json", rows)


def test_card_of_a_qwen3_embedding_folder(folder: Path) -> None:
    card = read_card(folder)
    assert (card.family, card.width, card.vocab_size, card.max_tokens) == (Family.QWEN3, 1024, 151669, 32768)
    assert (card.pooling, card.normalized, card.default_prompt) == (Pooling.LAST, True, None)
    assert dict(card.prompts) == {"query": QUERY_PROMPT, "document": ""}
    assert card.instruction_template == "Instruct: {instruction}\nQuery:{text}"
    assert card.name == folder.name
    assert read_card(folder, "Qwen/Qwen3-Embedding-0.6B").name == "Qwen/Qwen3-Embedding-0.6B"


def test_plain_hugging_face_folders_get_the_usual_pooling(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", QWEN3)
    assert read_card(tmp_path).pooling is Pooling.LAST
    write_json(tmp_path / "config.json", XLM_ROBERTA)
    assert read_card(tmp_path).pooling is Pooling.MEAN


def test_roberta_reserves_its_first_positions(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", XLM_ROBERTA)
    assert read_card(tmp_path).max_tokens == 512


@pytest.mark.parametrize(
    ("file", "content", "limit"),
    [
        ("sentence_bert_config.json", {"max_seq_length": 256}, 256),
        ("sentence_bert_config.json", {"max_seq_length": None}, 32768),
        ("tokenizer_config.json", {"model_max_length": 512}, 512),
        ("tokenizer_config.json", {"model_max_length": 1e30}, 32768),
        ("tokenizer_config.json", {}, 32768),
    ],
)
def test_the_least_limit_holds(folder: Path, file: str, content: dict[str, Any], limit: int) -> None:
    write_json(folder / file, content)
    assert read_card(folder).max_tokens == limit


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}, Pooling.MEAN),
        ({"pooling_mode_cls_token": True}, Pooling.CLS),
        ({"pooling_mode_max_tokens": True}, Pooling.MAX),
        ({"pooling_mode": "mean"}, Pooling.MEAN),
        ({"pooling_mode": "lasttoken", "include_prompt": True}, Pooling.LAST),
    ],
)
def test_pooling_in_either_spelling(folder: Path, config: dict[str, Any], pooling: Pooling) -> None:
    write_json(folder / "1_Pooling" / "config.json", config)
    assert read_card(folder).pooling is pooling


@pytest.mark.parametrize(
    "config",
    [
        {"pooling_mode_mean_sqrt_len_tokens": True},
        {"pooling_mode_weightedmean_tokens": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
        {"pooling_mode": "weightedmean"},
        {"pooling_mode": ["mean", "max"]},
        {"pooling_mode_mean_tokens": True, "include_prompt": False},
        {},
    ],
)
def test_other_pooling_is_refused(folder: Path, config: dict[str, Any]) -> None:
    write_json(folder / "1_Pooling" / "config.json", config)
    with pytest.raises(ModelError, match=r"1_Pooling.config\.json: pooling .*not supported"):
        read_card(folder)


@pytest.mark.parametrize("kind", ["Dense", "CNN", "LayerNorm"])
def test_other_modules_are_refused_by_name(folder: Path, kind: str) -> None:
    write_modules(folder, "Transformer", "Pooling", kind)
    with pytest.raises(ModelError, match=f"{kind} is not supported; supported are Transformer, Pooling and Normalize"):
        read_card(folder)


@pytest.mark.parametrize("names", [["LlamaForCausalLM"], ["T5EncoderModel"], [], None])
def test_other_architectures_are_refused_with_the_list(folder: Path, names: Any) -> None:
    edit_json(folder / "config.json", architectures=names)
    with pytest.raises(ModelError, match=r"not supported; supported are .*BertModel.*Qwen3ForCausalLM") as caught:
        read_card(folder)
    assert str(folder) in caught.value.message
    assert all(name in caught.value.message for name in names or ["none"])


@pytest.mark.parametrize("key", ["hidden_size", "vocab_size", "max_position_embeddings"])
@pytest.mark.parametrize("value", [..., 0, -1, "1024", 3.5, None])
def test_numbers_that_are_none_are_refused(folder: Path, key: str, value: Any) -> None:
    edit_json(folder / "config.json", **{key: value})
    with pytest.raises(ModelError, match=rf"config\.json: {key} must be a positive integer"):
        read_card(folder)


def test_a_folder_without_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is not a model folder: it has no config\.json") as caught:
        read_card(tmp_path)
    assert str(tmp_path) in caught.value.message


@pytest.mark.parametrize("content", [b'{"hidden_size": 10', b"", b"\xff\xfe", b"[1, 2]", b"null"])
@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "1_Pooling/config.json",
        "config_sentence_transformers.json",
        "tokenizer_config.json",
        "modules.json",
    ],
)
def test_broken_json_names_the_file(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_card(folder)
    assert str(folder / name) in caught.value.message


def test_a_missing_pooling_folder_is_named(folder: Path) -> None:
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(ModelError) as caught:
        read_card(folder)
    assert str(folder / "1_Pooling") in caught.value.message


def test_the_default_prompt_must_exist(folder: Path) -> None:
    edit_json(folder / "config_sentence_transformers.json", default_prompt_name="passage")
    with pytest.raises(ModelError, match=r"config_sentence_transformers\.json: default_prompt_name 'passage'"):
        read_card(folder)
    edit_json(folder / "config_sentence_transformers.json", default_prompt_name="query")
    assert read_card(folder).default_prompt == "query"


@pytest.mark.parametrize("prompts", [["query"], "query", {"query": 3}, {"query": None}])
def test_prompts_of_the_wrong_type_name_the_file(folder: Path, prompts: Any) -> None:
    edit_json(folder / "config_sentence_transformers.json", prompts=prompts)
    with pytest.raises(ModelError, match=r"config_sentence_transformers\.json"):
        read_card(folder)


def test_a_space_behind_query_survives_in_the_instruction(folder: Path) -> None:
    prompts = {"query": "Instruct: Find things\nQuery: "}
    edit_json(folder / "config_sentence_transformers.json", prompts=prompts)
    assert read_card(folder).instruction_template == "Instruct: {instruction}\nQuery: {text}"


def test_models_without_instructions_say_so(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", XLM_ROBERTA)
    assert read_card(tmp_path).instruction_template is None

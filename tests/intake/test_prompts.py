"""Prompts: which field wins, which contradict each other, and what is put before a text."""

from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from anydim.errors import InvalidRequest
from anydim.intake.prompts import prefix_of
from anydim.intake.request import EmbedRequest, InputType
from anydim.models.card import Family, ModelCard
from anydim.types import Pooling
from tests.checkpoints import QUERY_PROMPT

QWEN3 = ModelCard(
    name="Qwen/Qwen3-Embedding-0.6B",
    folder=Path("nowhere"),
    family=Family.QWEN3,
    width=1024,
    max_tokens=32768,
    vocab_size=151669,
    pooling=Pooling.LAST,
    prompts=MappingProxyType({"query": QUERY_PROMPT, "document": ""}),
    instruction_template="Instruct: {instruction}\nQuery:{text}",
)
E5 = ModelCard(
    name="intfloat/multilingual-e5-small",
    folder=Path("nowhere"),
    family=Family.BERT,
    width=384,
    max_tokens=512,
    vocab_size=250037,
    pooling=Pooling.MEAN,
    prompts=MappingProxyType({"query": "query: ", "passage": "passage: ", "sts": "query: "}),
    default_prompt="query",
)


def prefix(card: ModelCard, **fields: Any) -> str:
    """What goes before a text."""
    return prefix_of(EmbedRequest(inputs=["x"], **fields), card)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ""),
        ({"input_type": InputType.QUERY}, QUERY_PROMPT),
        ({"input_type": InputType.DOCUMENT}, ""),
        ({"prompt_name": "query"}, QUERY_PROMPT),
        ({"prompt_name": "document"}, ""),
        ({"instruction": "Find"}, "Instruct: Find\nQuery:"),
        ({"instruction": "Find", "input_type": InputType.QUERY}, "Instruct: Find\nQuery:"),
        ({"instruction": ""}, "Instruct: \nQuery:"),
    ],
)
def test_prompts_of_qwen3(fields: dict[str, Any], expected: str) -> None:
    assert prefix(QWEN3, **fields) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "query: "),
        ({"input_type": InputType.QUERY}, "query: "),
        ({"input_type": InputType.DOCUMENT}, "passage: "),
        ({"prompt_name": "sts"}, "query: "),
    ],
)
def test_prompts_of_e5(fields: dict[str, Any], expected: str) -> None:
    assert prefix(E5, **fields) == expected


@pytest.mark.parametrize("instruction", ["{text}", "{instruction}", "{", "a {0} b", "line\nQuery:", "\\1"])
def test_an_instruction_is_taken_literally(instruction: str) -> None:
    assert prefix(QWEN3, instruction=instruction) == f"Instruct: {instruction}\nQuery:"


@pytest.mark.parametrize(
    ("card", "fields", "param", "words"),
    [
        (QWEN3, {"instruction": "a", "prompt_name": "query"}, "instruction", "at most one of instruction and prompt"),
        (QWEN3, {"instruction": "a", "input_type": InputType.DOCUMENT}, "instruction", "documents take no instruction"),
        (QWEN3, {"prompt_name": "query", "input_type": InputType.QUERY}, "prompt_name", "at most one of prompt_name"),
        (QWEN3, {"prompt_name": "querry"}, "prompt_name", "no prompt named 'querry'; its prompts: document, query"),
        (E5, {"instruction": "a"}, "instruction", "not trained with instructions; use input_type or prompt_name"),
        (E5, {"prompt_name": ""}, "prompt_name", "no prompt named ''"),
    ],
)
def test_contradictions_are_refused(card: ModelCard, fields: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        prefix(card, **fields)
    assert caught.value.param == param

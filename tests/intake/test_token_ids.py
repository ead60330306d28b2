"""Token ids as input: refused by default, taken as the model's own, or decoded from OpenAI's cl100k."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from anydim.errors import InvalidRequest, MissingExtra, TooLong
from anydim.intake.request import Truncate
from anydim.intake.token_ids import Mode, TokenIdReader
from anydim.intake.tokenizer import TextTokenizer
from tests.qwen_tokenizer import END_OF_TEXT, VOCAB_SIZE
from tests.shelf import Shelf
from tests.texts import SENTENCES, declaration_articles

IDS = st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def tokenizer(qwen3_tokenizer: Path) -> TextTokenizer:
    """Qwen3's tokenizer with a limit of 12 tokens."""
    return TextTokenizer(qwen3_tokenizer, 12)


@pytest.fixture(scope="module")
def roomy(qwen3_tokenizer: Path) -> TextTokenizer:
    """Qwen3's tokenizer with the model's own limit."""
    return TextTokenizer(qwen3_tokenizer, 32768)


def read(tokenizer: TextTokenizer, mode: Mode, ids: list[int], truncate: Truncate = Truncate.END) -> list[int]:
    """The model's ids of one input."""
    return TokenIdReader(mode, tokenizer, VOCAB_SIZE).read([ids], truncate)[0].tolist()


def test_ids_are_refused_with_both_remedies(tokenizer: TextTokenizer) -> None:
    with pytest.raises(InvalidRequest, match=r"check_embedding_ctx_length=False.*--token-ids model") as caught:
        read(tokenizer, "refuse", [1, 2, 3])
    assert caught.value.param == "input"
    assert "--token-ids cl100k" in caught.value.message


def test_own_ids_get_the_final_token(tokenizer: TextTokenizer) -> None:
    assert read(tokenizer, "model", [785, 6722]) == [785, 6722, END_OF_TEXT]


def test_own_ids_that_have_the_final_token_stay(tokenizer: TextTokenizer) -> None:
    assert read(tokenizer, "model", [785, 6722, END_OF_TEXT]) == [785, 6722, END_OF_TEXT]
    assert read(tokenizer, "model", [END_OF_TEXT]) == [END_OF_TEXT]


@pytest.mark.parametrize("text", SENTENCES)
def test_own_ids_with_or_without_special_tokens_are_the_text(roomy: TextTokenizer, text: str) -> None:
    whole = roomy.encode([text], Truncate.NONE)[0].tolist()
    assert read(roomy, "model", whole) == read(roomy, "model", whole[:-1]) == whole


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta"])
def test_both_ends_are_added_for_encoders(shelf: Shelf, kind: str) -> None:
    tokenizer = TextTokenizer(shelf.tokenizer(kind), 64)
    file = Tokenizer.from_file(str(shelf.tokenizer(kind)))
    whole, bare = (file.encode(SENTENCES[0], add_special_tokens=flag).ids for flag in (True, False))
    for ids in (whole, bare):
        assert TokenIdReader("model", tokenizer, 640).read([ids], Truncate.END)[0].tolist() == whole


@given(ids=IDS)
def test_own_ids_are_never_decoded_and_keep_the_final_token(tokenizer: TextTokenizer, ids: list[int]) -> None:
    body = ids[:-1] if ids[-1] == END_OF_TEXT else ids
    assert read(tokenizer, "model", ids) == [*body[:11], END_OF_TEXT]
    assert read(tokenizer, "model", ids, Truncate.START) == [*body[-11:], END_OF_TEXT] if body else [END_OF_TEXT]


def test_too_many_own_ids_may_be_refused(tokenizer: TextTokenizer) -> None:
    assert len(read(tokenizer, "model", [5] * 11, Truncate.NONE)) == 12
    with pytest.raises(TooLong, match=r"input\[0\] has 13 tokens, but the model reads 12"):
        read(tokenizer, "model", [5] * 12, Truncate.NONE)


@pytest.mark.parametrize("wrong", [-1, VOCAB_SIZE, 2**31, 2**63, -(2**40)])
@pytest.mark.parametrize("place", [0, 1])
def test_ids_out_of_range_are_refused_and_named(tokenizer: TextTokenizer, wrong: int, place: int) -> None:
    inputs = [[1, 2], [3]]
    inputs[place].append(wrong)
    with pytest.raises(InvalidRequest, match=rf"input\[{place}\] has a token id outside 0 to 151668") as caught:
        TokenIdReader("model", tokenizer, VOCAB_SIZE).read(inputs, Truncate.END)
    assert caught.value.param == f"input[{place}]"


@pytest.mark.parametrize("mode", ["model", "cl100k"])
def test_an_empty_list_is_refused_and_named(tokenizer: TextTokenizer, mode: Mode) -> None:
    with pytest.raises(InvalidRequest, match=r"input\[1\] is an empty list of token ids"):
        TokenIdReader(mode, tokenizer, VOCAB_SIZE).read([[1], []], Truncate.END)


def test_ids_are_int32(tokenizer: TextTokenizer) -> None:
    (ids_T,) = TokenIdReader("model", tokenizer, VOCAB_SIZE).read([[1, 2]], Truncate.END)
    assert ids_T.dtype == np.int32


def test_cl100k_ids_are_the_text_that_they_spell(roomy: TextTokenizer) -> None:
    tiktoken = pytest.importorskip("bpe_openai", reason="the extra `cl100k` is not installed")
    encoding = tiktoken.get_encoding("cl100k_base")
    texts = [*SENTENCES, *declaration_articles()[::40]]
    expected = [ids_T.tolist() for ids_T in roomy.encode(texts, Truncate.END)]
    assert [read(roomy, "cl100k", encoding.encode(text)) for text in texts] == expected


def test_known_cl100k_ids(roomy: TextTokenizer) -> None:
    pytest.importorskip("bpe_openai", reason="the extra `cl100k` is not installed")
    assert read(roomy, "cl100k", [15339, 1917]) == roomy.encode(["hello world"], Truncate.END)[0].tolist()


@pytest.mark.parametrize("wrong", [-1, 100277, 151643])
def test_ids_that_cl100k_does_not_have_are_refused(roomy: TextTokenizer, wrong: int) -> None:
    pytest.importorskip("bpe_openai", reason="the extra `cl100k` is not installed")
    with pytest.raises(InvalidRequest, match=r"input\[0\]"):
        read(roomy, "cl100k", [15339, wrong])


@pytest.mark.parametrize("special", [100256, 100257, 100258, 100260, 100261, 100275, 100276])
def test_ids_at_the_end_of_cl100k_are_read_or_refused(roomy: TextTokenizer, special: int) -> None:
    """Special tokens, and the holes between them, must not end in anything but an answer or a refusal."""
    pytest.importorskip("bpe_openai", reason="the extra `cl100k` is not installed")
    with suppress(InvalidRequest):
        assert read(roomy, "cl100k", [15339, special])[-1] == END_OF_TEXT


def test_bytes_of_cl100k_that_are_no_text_are_read_or_refused(roomy: TextTokenizer) -> None:
    """Id 222 is the lone byte 0x80 or the like: cut out of a longer character by a client that splits by tokens."""
    pytest.importorskip("bpe_openai", reason="the extra `cl100k` is not installed")
    with suppress(InvalidRequest):
        assert read(roomy, "cl100k", [15339, 222])[-1] == END_OF_TEXT


def test_cl100k_without_its_package_names_the_extra(tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bpe_openai", None)
    with pytest.raises(MissingExtra, match=r"pip install 'anydim\[cl100k\]'"):
        TokenIdReader("cl100k", tokenizer, VOCAB_SIZE)

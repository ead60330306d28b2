"""Tokens: the same as Hugging Face's for every text and every way of cutting, with fastokens and without."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from anydim.errors import InvalidRequest, ModelError, TooLong
from anydim.intake.request import Truncate
from anydim.intake.tokenizer import TextTokenizer
from tests.qwen_tokenizer import END_OF_TEXT, write_qwen3_tokenizer
from tests.shelf import Shelf
from tests.texts import EDGES, LONG, SENTENCES, declaration_articles

KINDS = ["qwen-like", "bert", "roberta", "xlm-roberta"]
CHARACTERS = st.characters(codec="utf-8")
SCRIPTS = st.text(st.sampled_from("aZ é\u0301ﬁ 09.,!?'\n\r\t\u00a0\u200b中文かなअमالع가\U0001f600\U0001f468\u200d"))
SPELLED = st.lists(st.sampled_from(["<|endoftext|>", "<|im_", "start|>", "<think>", "a", " ", "\n", "中"])).map("".join)
TEXTS = st.one_of(st.text(CHARACTERS, max_size=60), SCRIPTS, SPELLED)


@pytest.fixture(scope="module")
def fast(qwen3_tokenizer: Path) -> TextTokenizer:
    """Qwen3's tokenizer as intake loads it."""
    return TextTokenizer(qwen3_tokenizer, 32768)


@pytest.fixture(scope="module")
def reference(qwen3_tokenizer: Path) -> Tokenizer:
    """Qwen3's tokenizer as Hugging Face loads it."""
    return Tokenizer.from_file(str(qwen3_tokenizer))


@pytest.fixture(scope="module")
def sixteen(qwen3_tokenizer: Path) -> TextTokenizer:
    """Qwen3's tokenizer with a limit of 16 tokens."""
    return TextTokenizer(qwen3_tokenizer, 16)


@contextmanager
def cutting(tokenizer: Tokenizer, limit: int, truncate: Truncate) -> Iterator[Tokenizer]:
    """Hugging Face's tokenizer, cutting at either end for a while."""
    tokenizer.enable_truncation(limit, direction="right" if truncate is Truncate.END else "left")
    yield tokenizer
    tokenizer.no_truncation()


def encode(tokenizer: TextTokenizer, texts: list[str], truncate: Truncate = Truncate.END) -> list[list[int]]:
    """Ids as lists."""
    return [ids_T.tolist() for ids_T in tokenizer.encode(texts, truncate)]


def test_known_ids_of_qwen3_embedding(fast: TextTokenizer) -> None:
    texts = ["", "The capital of China is Beijing."]
    assert encode(fast, texts) == [[END_OF_TEXT], [785, 6722, 315, 5616, 374, 26549, 13, END_OF_TEXT]]
    assert (fast.first, fast.last) == ((), (END_OF_TEXT,))


def test_the_chat_models_file_is_rebuilt_too(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(write_qwen3_tokenizer(tmp_path / "tokenizer.json", embedding=False), 100)
    assert (tokenizer.first, tokenizer.last) == ((), ())
    assert encode(tokenizer, ["The capital"]) == [[785, 6722]]


def test_byte_level_bpe_goes_through_fastokens(fast: TextTokenizer) -> None:
    pytest.importorskip("fastokens", reason="the extra `fast` is not installed")
    assert fast.is_fast


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_other_models_go_through_tokenizers(shelf: Shelf, kind: str) -> None:
    assert not TextTokenizer(shelf.tokenizer(kind), 512).is_fast


def test_real_sentences_are_tokenised_as_hugging_face_does(fast: TextTokenizer, reference: Tokenizer) -> None:
    texts = [*declaration_articles(), *SENTENCES, *EDGES, LONG]
    assert encode(fast, texts) == [encoding.ids for encoding in reference.encode_batch(texts)]


@given(texts=st.lists(TEXTS, min_size=1, max_size=6))
def test_any_text_is_tokenised_as_hugging_face_does(
    fast: TextTokenizer, reference: Tokenizer, texts: list[str]
) -> None:
    assert encode(fast, texts) == [encoding.ids for encoding in reference.encode_batch(texts)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [3, 4, 8, 33, 400])
@pytest.mark.parametrize("truncate", [Truncate.END, Truncate.START])
def test_cutting_is_hugging_faces_truncation(shelf: Shelf, kind: str, limit: int, truncate: Truncate) -> None:
    file, texts = shelf.tokenizer(kind), [*SENTENCES, *EDGES, LONG]
    ours = encode(TextTokenizer(file, limit), texts, truncate)
    with cutting(Tokenizer.from_file(str(file)), limit, truncate) as theirs:
        assert ours == [encoding.ids for encoding in theirs.encode_batch(texts)]


@pytest.mark.parametrize("truncate", [Truncate.END, Truncate.START])
def test_cutting_the_real_vocabulary(sixteen: TextTokenizer, reference: Tokenizer, truncate: Truncate) -> None:
    texts = [*declaration_articles()[::5], *SENTENCES, *EDGES, LONG]
    with cutting(reference, 16, truncate) as theirs:
        assert encode(sixteen, texts, truncate) == [encoding.ids for encoding in theirs.encode_batch(texts)]


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_at_the_ends_survive_every_cut(shelf: Shelf, kind: str) -> None:
    for limit in (3, 10):
        tokenizer = TextTokenizer(shelf.tokenizer(kind), limit)
        for truncate in (Truncate.END, Truncate.START):
            for ids in encode(tokenizer, [LONG, *SENTENCES], truncate):
                assert len(ids) <= limit
                assert tuple(ids[: len(tokenizer.first)]) == tokenizer.first
                assert tuple(ids[len(ids) - len(tokenizer.last) :]) == tokenizer.last


def test_refusing_to_cut_names_the_text_and_both_counts(sixteen: TextTokenizer) -> None:
    exact = "The capital of China is Beijing." + " Yes" * 8
    assert len(encode(sixteen, [exact], Truncate.NONE)[0]) == 16
    with pytest.raises(TooLong, match=r"input\[1\] has 17 tokens, but the model reads 16 tokens") as caught:
        sixteen.encode([exact, exact + " Yes"], Truncate.NONE)
    assert caught.value.param == "input[1]"


def test_a_prompt_survives_a_cut_at_the_start(sixteen: TextTokenizer, reference: Tokenizer) -> None:
    prompt = "Instruct: Find it\nQuery:"
    prompt_ids = reference.encode(prompt, add_special_tokens=False).ids
    (ids_T,) = sixteen.encode([LONG], Truncate.START, prompt)
    whole = reference.encode(prompt + LONG).ids
    assert ids_T.tolist() == [*prompt_ids, *whole[len(prompt_ids) - 16 :]]


def test_a_prompt_is_joined_before_tokenising(fast: TextTokenizer, reference: Tokenizer) -> None:
    for prompt in ("query: ", "Query:", "a"):
        ours = [ids_T.tolist() for ids_T in fast.encode(["bc", " x", ""], Truncate.END, prompt)]
        assert ours == [reference.encode(prompt + text).ids for text in ("bc", " x", "")]


@pytest.mark.parametrize("truncate", [Truncate.END, Truncate.START])
@pytest.mark.parametrize("unit", ["word ", "中", "a", ". ", "\U0001f600", "line\n", "e\u0301"])
def test_a_text_far_beyond_the_limit_is_cut_like_any_other(
    sixteen: TextTokenizer, reference: Tokenizer, truncate: Truncate, unit: str
) -> None:
    text = unit * (200_000 // len(unit))
    with cutting(reference, 16, truncate) as theirs:
        assert encode(sixteen, [text], truncate) == [theirs.encode(text).ids]


def test_a_text_far_beyond_the_limit_may_be_refused_unread(sixteen: TextTokenizer) -> None:
    with pytest.raises(TooLong, match=r"input\[0\] has .* the model reads 16 tokens"):
        sixteen.encode(["word " * 1_000_000], Truncate.NONE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\udc00\ud800"])
def test_a_lone_surrogate_is_refused_and_named(shelf: Shelf, kind: str, text: str) -> None:
    tokenizer = TextTokenizer(shelf.tokenizer(kind), 512)
    with pytest.raises(InvalidRequest, match=r"input\[2\] holds a lone surrogate") as caught:
        tokenizer.encode(["fine", "also \U0001f600 fine", text], Truncate.END)
    assert caught.value.param == "input[2]"


@pytest.mark.parametrize("kind", KINDS)
def test_nul_and_control_characters_are_text(shelf: Shelf, kind: str) -> None:
    file = shelf.tokenizer(kind)
    texts = ["\x00", "a\x00b", "\x01\x02\x7f", "\ufeff\u200b", "\uffff\U0010ffff"]
    expected = [encoding.ids for encoding in Tokenizer.from_file(str(file)).encode_batch(texts)]
    assert encode(TextTokenizer(file, 512), texts) == expected


@pytest.mark.parametrize("count", [0, 1, 300])
def test_one_answer_a_text(fast: TextTokenizer, count: int) -> None:
    texts = [f"text {place}" for place in range(count)]
    assert len(fast.encode(texts, Truncate.NONE)) == count


def test_ids_may_be_kept_while_others_are_made(fast: TextTokenizer) -> None:
    first = fast.encode(["The capital of China is Beijing."], Truncate.END)[0]
    kept = first.copy()
    fast.encode([LONG] * 5, Truncate.END)
    assert (first == kept).all()


def test_settings_of_the_file_for_cutting_and_padding_are_ignored(shelf: Shelf, tmp_path: Path) -> None:
    """all-MiniLM-L6-v2's own file cuts at 128 and pads to 128."""
    tokenizer = Tokenizer.from_file(str(shelf.tokenizer("bert")))
    expected = tokenizer.encode(LONG).ids
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=64)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    ours = TextTokenizer(tmp_path / "tokenizer.json", 100_000)
    assert encode(ours, [LONG, "a"]) == [expected, encode(ours, ["a"])[0]]
    assert len(encode(ours, ["a"])[0]) == 3


@pytest.mark.parametrize("content", [b"", b"{}", b'{"model": 1}', b"\xff\xfe\x00", b"[]", b"null"])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelError, match="is not a valid tokenizer") as caught:
        TextTokenizer(tmp_path / "tokenizer.json", 100)
    assert str(tmp_path / "tokenizer.json") in caught.value.message


def test_a_missing_file_says_that_only_fast_tokenizers_work(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no tokenizer\.json \(only fast tokenizers"):
        TextTokenizer(tmp_path / "tokenizer.json", 100)

"""Chunks: bounded, overlapping, whole words where there are any, and nothing of the text is lost."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anydim import Embedder
from anydim.retrieval.chunks import Spans, chunk_text


def spans_of_letters(text: str) -> Spans:
    """One token for each two characters of a word, as sub-word tokenizers cut."""
    found = [match.span() for match in re.finditer(r"\S{1,2}", text)]
    return np.array(found, np.int32).reshape(-1, 2)


WORDS = st.lists(st.text("abcde", min_size=1, max_size=9), min_size=1, max_size=80)


@given(words=WORDS, size=st.integers(8, 24))
def test_chunks_without_overlap_are_the_text_in_bounded_parts(words: list[str], size: int) -> None:
    chunks = list(chunk_text(" ".join(words), spans_of_letters, size, 0))
    assert "".join("".join(chunks).split()) == "".join(words)
    assert all(len(spans_of_letters(chunk)) <= size for chunk in chunks)


@given(words=WORDS, size=st.integers(8, 24), overlap=st.integers(1, 4))
def test_overlapping_chunks_hold_all_words_and_are_bounded(words: list[str], size: int, overlap: int) -> None:
    text = " ".join(f"{place}{word[:2]}" for place, word in enumerate(words))
    chunks = list(chunk_text(text, spans_of_letters, size, overlap))
    assert {word for chunk in chunks for word in chunk.split()} >= set(text.split())
    assert all(chunk in text and len(spans_of_letters(chunk)) <= size for chunk in chunks)


@given(words=WORDS)
def test_words_of_up_to_two_tokens_are_never_cut(words: list[str]) -> None:
    short = [word[:4] for word in words]
    for chunk in chunk_text(" ".join(short), spans_of_letters, 16, 4):
        assert chunk.split()[-1] in short  # where a chunk ends; it may begin inside a word, which its neighbour has


def test_neighbours_share_the_overlap() -> None:
    text = " ".join(f"w{number}" for number in range(40))
    chunks = [chunk.split() for chunk in chunk_text(text, spans_of_letters, 16, 4)]
    assert len(chunks) > 3
    for before, after in itertools.pairwise(chunks):
        assert set(before) & set(after)


def test_a_text_longer_than_a_segment_is_cut_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(f"w{number:03}" for number in range(500))
    whole = list(chunk_text(text, spans_of_letters, 32, 8))
    monkeypatch.setattr("anydim.retrieval.chunks._SEGMENT", 333)
    parts = list(chunk_text(text, spans_of_letters, 32, 8))
    assert {word for chunk in parts for word in chunk.split()} >= set(text.split())
    assert abs(len(parts) - len(whole)) <= len(text) // 333 + 1


def test_scripts_without_spaces_are_cut_too(embedder: Embedder) -> None:
    text = "人人生而自由在尊严和权利上一律平等" * 30
    tokenizer = embedder.intake.tokenizer
    chunks = list(chunk_text(text, tokenizer.spans, 64, 8))
    assert len(chunks) > 4
    assert "".join(chunks).startswith(text[:40])
    assert all(len(tokenizer.spans(chunk)) <= 66 for chunk in chunks)


@pytest.mark.parametrize("text", ["", "   ", "\n\n"])
def test_nothing_comes_of_nothing(text: str) -> None:
    assert list(chunk_text(text, spans_of_letters, 8, 0)) == []

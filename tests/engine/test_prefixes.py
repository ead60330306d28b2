"""Shared prefixes: each is really common to its texts, each text keeps a token, and what can be saved is saved."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anydim.engine.packing import pack
from anydim.engine.prefixes import LEAST_LENGTH, LEAST_SAVING, find_prefixes
from anydim.types import Item, Prefixes

Text = list[int]


def found(texts: Sequence[Text]) -> tuple[list[Text], Prefixes | None]:
    """The texts in packed order, and what they share."""
    batch = pack([Item(np.array(text, np.int32), 32) for text in texts])
    return [texts[place] for place in batch.order_B.tolist()], find_prefixes(batch.ids_T, batch.cu_seqlens_C)


def saving(prefixes: Prefixes | None) -> int:
    """Tokens that need not be computed."""
    if prefixes is None:
        return 0
    members_P = np.bincount(prefixes.prefix_B[prefixes.prefix_B >= 0], minlength=len(prefixes.lengths_P))
    return int(((members_P - 1) * prefixes.lengths_P).sum())


def one_prefix(texts: Sequence[Text]) -> int:
    """The most that a single prefix can save, by looking at each neighbouring pair of the sorted texts."""
    best = 0
    for one, other in pairwise(sorted(texts)):
        agree = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
        for length in {agree, min(agree, len(one) - 1, len(other) - 1)}:
            members = sum(len(text) > length and text[:length] == one[:length] for text in texts)
            best = max(best, (members - 1) * length if length >= LEAST_LENGTH else 0)
    return best


def random_text(length: int, seed: int) -> Text:
    """Token ids that nothing else begins with."""
    return np.random.default_rng(seed).integers(0, 150_000, length).tolist()


@st.composite
def families(draw: st.DrawFn) -> list[Text]:
    """Texts of few distinct tokens behind heads that are themselves behind heads, as prompts and their queries are."""
    tokens = st.integers(0, draw(st.sampled_from([1, 3, 50_000])))
    texts: list[Text] = [[]]
    for longest in (40, 30, 12):
        heads = draw(st.lists(st.lists(tokens, max_size=longest), min_size=1, max_size=4))
        texts = [text + head for text in texts for head in heads]
    chosen = draw(st.lists(st.sampled_from(texts), min_size=1, max_size=30))
    return [text or [0] for text in chosen]


def assert_sound(texts: Sequence[Text]) -> None:
    """Whether each prefix is common to two texts at least, leaves each a token, and together they are worth it."""
    ordered, prefixes = found(texts)
    if prefixes is None:
        return
    for number, length in enumerate(prefixes.lengths_P.tolist()):
        members = [text for text, of in zip(ordered, prefixes.prefix_B.tolist(), strict=True) if of == number]
        assert length >= LEAST_LENGTH
        assert len(members) >= 2
        assert len({tuple(text[:length]) for text in members}) == 1
        assert min(map(len, members)) > length
    assert prefixes.prefix_B.max() < len(prefixes.lengths_P)
    assert saving(prefixes) >= LEAST_SAVING * sum(map(len, texts))


@given(families())
def test_what_is_shared_is_common_and_leaves_a_token(texts: list[Text]) -> None:
    assert_sound(texts)


@given(families())
def test_it_saves_about_as_much_as_the_best_single_prefix(texts: list[Text]) -> None:
    """A longer prefix is looked for four tokens beyond a shorter one, so that each text may lose three."""
    _, prefixes = found(texts)
    best, least = one_prefix(texts) - 3 * len(texts), LEAST_SAVING * sum(map(len, texts))
    assert saving(prefixes) >= best or (prefixes is None and best < least)


@given(st.lists(st.integers(0, 2**31 - 1), max_size=20), st.integers(1, 40))
def test_copies_share_all_but_the_last_token(start: Text, copies: int) -> None:
    text = [*start, *range(17)]
    _, prefixes = found([text] * copies)
    assert saving(prefixes) == (copies - 1) * (len(text) - 1)


def test_an_instruction_is_found_whole() -> None:
    instruction = random_text(80, 1)
    _, prefixes = found([instruction + random_text(32, seed) for seed in range(2, 40)])
    assert prefixes is not None
    assert prefixes.lengths_P.tolist() == [80]
    assert not prefixes.prefix_B.any()


def test_prompts_with_a_common_beginning_stay_prompts() -> None:
    """Seventy tokens are common to all, but each prompt with its own end saves more."""
    begins, rare = random_text(70, 1), [random_text(200, 9), random_text(16, 8)]
    prompts = [begins + random_text(10, 2), begins + random_text(20, 3)]
    texts = [prompts[seed % 2] + random_text(30, 100 + seed) for seed in range(40)]
    ordered, prefixes = found([*texts, *rare])
    assert prefixes is not None
    assert sorted(prefixes.lengths_P.tolist()) == [80, 90]
    assert prefixes.prefix_B[[ordered.index(text) for text in rare]].tolist() == [-1, -1]


def test_copies_among_queries_leave_the_common_prefix() -> None:
    """Two long copies save more by themselves; the other queries share the instruction."""
    instruction = random_text(20, 1)
    copy = instruction + random_text(300, 2)
    texts = [instruction + random_text(20, seed) for seed in range(3, 23)]
    _, prefixes = found([*texts, copy, copy])
    assert prefixes is not None
    assert sorted(prefixes.lengths_P.tolist()) == [20, 319]
    assert saving(prefixes) == 19 * 20 + 319


@pytest.mark.parametrize(
    "texts",
    [
        [[1, 2, 3]],
        [[1]] * 50,
        [list(range(16))] * 50,  # a shared prefix of 16 would leave nothing
        [random_text(40, seed) for seed in range(50)],
        [list(range(15)) + random_text(40, seed) for seed in range(50)],
        [list(range(16)) + random_text(1000, seed) for seed in range(20)],  # saves less than a twentieth
    ],
    ids=["one", "short", "sixteen", "different", "fifteen in common", "too little"],
)
def test_what_does_not_pay_is_left_alone(texts: list[Text]) -> None:
    assert found(texts)[1] is None


def test_many_texts_that_part_behind_the_first_tokens_share_just_these() -> None:
    _, prefixes = found([list(range(16)) + random_text(16, seed) for seed in range(500)])
    assert prefixes is not None
    assert prefixes.lengths_P.tolist() == [16]


@given(families())
def test_texts_of_equal_hash_share_only_equal_tokens(texts: list[Text]) -> None:
    """With a hash that knows nothing but the sum of the tokens, or not even that."""
    for multiplier in (0, 1):
        with patch("anydim.engine.prefixes._MULTIPLIER", multiplier):
            assert_sound(texts)

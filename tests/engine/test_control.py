"""What the first rank tells the others arrives as it was sent, whatever the batch."""

from __future__ import annotations

import socket
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anydim.engine.control import Kind, Word, receive, send
from anydim.engine.packing import factor_out, pack
from anydim.engine.prefixes import find_prefixes
from anydim.types import Batch, Item


def cross(*words: Word) -> list[Word]:
    """Through a socket, while the other side writes."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        writer = threading.Thread(target=lambda: [send(theirs, word) for word in words])
        writer.start()
        found = [receive(ours) for _ in words]
        writer.join()
    return found


texts = st.lists(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=40), min_size=1, max_size=30)


def same(ours: Batch, theirs: Batch) -> bool:
    names = ("ids_T", "positions_T", "cu_seqlens_C")
    return len(ours.items) == len(theirs.items) and all(
        np.array_equal(getattr(ours, name), getattr(theirs, name)) for name in names
    )


@given(texts)
def test_a_batch_arrives_whole(lists: list[list[int]]) -> None:
    batch = pack([Item(np.array(ids, np.int32), 7) for ids in lists])
    run, end = cross(Word(Kind.RUN, model=3, batch=batch), Word(Kind.END))
    assert run.kind is Kind.RUN
    assert run.model == 3
    assert run.batch is not None
    assert same(run.batch, batch)
    assert run.batch.prefixes is None
    assert end == Word(Kind.END)


def test_shared_prefixes_cross_too() -> None:
    begin = list(range(100))
    batch = pack([Item(np.array([*begin, place], np.int32), 7) for place in range(9)])
    prefixes = find_prefixes(batch.ids_T, batch.cu_seqlens_C)
    assert prefixes is not None
    shared = factor_out(batch, prefixes)
    (word,) = cross(Word(Kind.RUN, batch=shared))
    assert word.batch is not None
    assert word.batch.prefixes is not None
    assert same(word.batch, shared)
    assert np.array_equal(word.batch.prefixes.lengths_P, prefixes.lengths_P)
    assert np.array_equal(word.batch.prefixes.prefix_B, prefixes.prefix_B)


def test_a_first_rank_that_is_gone_is_noticed() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        with pytest.raises(EOFError):
            receive(ours)

"""What the first rank tells the others arrives as it was sent, whatever the batch."""

from __future__ import annotations

import socket
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anydim.engine.control import Kind, Word, answer, hear, receive, send
from anydim.engine.graphs import GraphMemory, GraphPool
from anydim.engine.packing import factor_out, pack
from anydim.engine.prefixes import find_prefixes
from anydim.errors import ComputeFailed
from anydim.types import Batch, Item
from tests.pipeline import Pipeline
from tests.shelf import Shelf


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


@pytest.mark.parametrize(("ours", "theirs"), [(0, 0), (64, 0), (0, 64), (64, 64)])
def test_ranks_capture_graphs_in_step_and_agree_where_one_cannot(
    monkeypatch: pytest.MonkeyPatch, ours: int, theirs: int
) -> None:
    """A number is the bucket whose capture fails on that rank; the device's part is pretended."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda *_: 0)
    captured: dict[str, list[int]] = {"first": [], "other": []}

    def pool(name: str, fails_at: int) -> GraphPool:
        made = GraphPool(None, torch.device("cpu"), 256, 4096, GraphMemory(), several=True)  # type: ignore[arg-type]

        def capture(bucket: int, alone: bool) -> object:
            captured[name].append(bucket)
            if bucket == fails_at:
                raise ValueError("this one cannot")
            return object()

        monkeypatch.setattr(made, "_capture", capture)
        return made

    mine, other, (line, far) = pool("first", ours), pool("other", theirs), socket.socketpair()

    def follow() -> None:
        while (word := receive(far)).kind is Kind.CAPTURE:
            try:
                other.add(word.number)
            except ValueError:
                answer(far, False)
            else:
                answer(far, True)

    def agree(good: bool) -> bool:
        return hear(line) and good

    with line, far:
        thread = threading.Thread(target=follow)
        thread.start()
        try:
            if ours or theirs:
                with pytest.raises((ValueError, ComputeFailed), match="this one cannot" if ours else "another rank"):
                    mine.capture(begin=lambda bucket: send(line, Word(Kind.CAPTURE, number=bucket)), agree=agree)
            else:
                mine.capture(begin=lambda bucket: send(line, Word(Kind.CAPTURE, number=bucket)), agree=agree)
        finally:
            send(line, Word(Kind.END))
            thread.join(30)
    assert captured["first"] == captured["other"]
    assert captured["first"][-1] == (64 if ours or theirs else 192)


def test_a_model_after_one_whose_graphs_were_given_up_begins_a_pool_of_its_own(
    monkeypatch: pytest.MonkeyPatch, shelf: Shelf
) -> None:
    """On a rank that follows; the device's part is pretended, up to the handle of the memory."""
    made: list[object] = []
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: made.append(object()) or made[-1])
    monkeypatch.setattr(GraphPool, "_capture", lambda pool, bucket, alone: pool._memory.pool_for(alone))
    first, second, third = (Pipeline(shelf.folder("qwen3")).runner for _ in range(3))
    second.graph_memory = third.graph_memory = first.graph_memory
    first.make_graphs(256, 4096, several=True)
    for bucket in (256, 16):
        first.add_graph(bucket)
    first.follow(Word(Kind.DROP))
    second.make_graphs(256, 4096, several=True)
    for bucket in (256, 16):
        second.add_graph(bucket)
    assert (len(made), second.graph_memory.graphs) == (2, 2)
    third.make_graphs(256, 4096, several=True)
    third.add_graph(256)
    third.follow(Word(Kind.DROP))
    assert (len(made), second.graph_memory.graphs) == (2, 2)  # what the second captured still uses it

"""What crosses between the processes arrives as it left."""

from __future__ import annotations

import time
from dataclasses import fields

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anydim.engine import wire
from anydim.engine.metrics import EngineCounts
from anydim.errors import ComputeFailed, Overloaded
from anydim.types import Item, Output, OutputDtype, Priority, Terms

TERMS = (Terms(), Terms(Priority.HIGH), Terms(Priority.LOW, None, "a key"), Terms())
items = st.lists(
    st.builds(
        Item,
        st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=9).map(lambda row: np.array(row, np.int32)),
        st.integers(1, 70),
        st.sampled_from(OutputDtype),
        st.booleans(),
        st.sampled_from(TERMS),
    ),
    min_size=1,
    max_size=9,
)
EVERY = Item(
    np.array([7], np.int32), 3, OutputDtype.INT8, False, Terms(Priority.LOW), model=2, each_token=True, group=5
)
token_items = st.lists(
    st.builds(
        lambda length, dim, unit: Item(np.arange(length, dtype=np.int32), dim, normalize=unit, each_token=True),
        st.integers(1, 9),
        st.integers(1, 70),
        st.booleans(),
    ),
    min_size=1,
    max_size=9,
)


@given(items)
def test_items_survive(sent: list[Item]) -> None:
    header, payload = wire.pack_items(3, sent)
    received = wire.unpack_items(header, memoryview(b"".join(payload)))
    assert [(row.ids.tolist(), row.dim, row.dtype, row.normalize, row.terms) for row in received] == [
        (row.ids.tolist(), row.dim, row.dtype, row.normalize, row.terms) for row in sent
    ]


@pytest.mark.parametrize("field", [each.name for each in fields(Item)])
def test_no_field_of_an_item_is_left_behind(field: str) -> None:
    header, payload = wire.pack_items(3, [EVERY])
    (received,) = wire.unpack_items(header, memoryview(b"".join(payload)))
    assert getattr(received, field) == getattr(EVERY, field)
    usual = {each.name: each.default for each in fields(Item)}
    assert getattr(EVERY, field) != usual[field], "the example says nothing of this field"


@given(token_items)
def test_vectors_a_token_survive(sent: list[Item]) -> None:
    header, payload = wire.pack_items(3, sent)
    received = wire.unpack_items(header, memoryview(b"".join(payload)))
    assert [(row.each_token, row.normalize) for row in received] == [(True, row.normalize) for row in sent]
    outputs = [Output(np.random.rand(len(item.ids), item.dim).astype(np.float32)) for item in sent]
    result, values = wire.pack_outputs(7, outputs)
    found = wire.unpack_outputs(result, memoryview(b"".join(values)), sent)
    for output, wanted in zip(found, outputs, strict=True):
        np.testing.assert_array_equal(output.values, wanted.values)


def test_a_deadline_is_the_same_for_the_engine() -> None:
    deadline = time.monotonic() + 50
    sent = Item(np.array([1], np.int32), 32, terms=Terms(deadline=deadline))
    header, payload = wire.pack_items(3, [sent])
    (received,) = wire.unpack_items(header, memoryview(b"".join(payload)))
    assert received.terms.deadline == deadline


def test_counts_survive() -> None:
    counts = EngineCounts(tokens=7, errors={"failed": 2})
    counts.batch_tokens.add(100)
    beat = wire.Beat(True, 0.5, counts)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(beat), type=wire.Header) == beat


@given(items, st.randoms(use_true_random=False))
def test_outputs_survive_with_scales_and_errors(asked: list[Item], draw: object) -> None:
    sent = [_output(item, failed=draw.random() < 0.3) for item in asked]  # type: ignore[attr-defined]
    header, payload = wire.pack_outputs(7, sent)
    received = wire.unpack_outputs(header, memoryview(b"".join(payload)), asked)
    for before, after in zip(sent, received, strict=True):
        assert before.values.tobytes() == after.values.tobytes()
        assert before.scale == after.scale
        assert (before.error and before.error.message) == (after.error and after.error.message)
        assert type(before.error) is type(after.error)


def test_an_overload_keeps_its_hint() -> None:
    rebuilt = wire.rebuild("overloaded", "full", 2.5)
    assert isinstance(rebuilt, Overloaded)
    assert rebuilt.retry_after == 2.5


def _output(item: Item, failed: bool) -> Output:
    if failed:
        return Output(np.empty(0, np.float32), error=ComputeFailed("no finite vector"))
    values = np.arange(item.dtype.stored(item.dim)).astype(item.dtype.numpy)
    return Output(values, 0.5 if item.dtype.has_scale else None)

"""Which dimensions a request may ask for, and in which words the others are refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anydim.errors import ConfigError, InvalidRequest
from anydim.intake.validate import DimensionRule

WIDE = DimensionRule.of(2560, 32, None)
WIDTHS = st.integers(1, 5000)
STEPS = st.integers(1, 600)


@given(width=WIDTHS, step=STEPS, dim=st.integers(-10, 6000))
def test_multiples_of_the_step_and_the_width_are_allowed(width: int, step: int, dim: int) -> None:
    allowed = dim in set(range(step, width + 1, step)) | {width}
    rule = DimensionRule.of(width, step, "native")
    assert rule.allows(dim) == allowed
    if allowed:
        assert rule.resolve(dim, None, 3) == [dim] * 3
    else:
        with pytest.raises(InvalidRequest, match=rf"output_dim must be .*, got {dim}$"):
            rule.resolve(dim, None, 3)


@given(width=WIDTHS, step=STEPS)
def test_the_default_is_allowed_and_at_most_1024_where_it_can_be(width: int, step: int) -> None:
    rule = DimensionRule.of(width, step, None)
    assert rule.allows(rule.default)
    below = [dim for dim in (*range(step, width + 1, step), width) if dim <= 1024]
    assert rule.default == (max(below) if below else min(step, width))


@pytest.mark.parametrize(("width", "default"), [(384, 384), (1024, 1024), (2560, 1024), (4096, 1024)])
def test_defaults_of_known_widths(width: int, default: int) -> None:
    assert DimensionRule.of(width, 32, None).resolve(None, None, 2) == [default] * 2
    assert DimensionRule.of(width, 32, "native").resolve(None, None, 1) == [width]
    assert DimensionRule.of(width, 32, "256").resolve(None, None, 1) == [256]


def test_the_message_names_the_field_the_range_and_the_value() -> None:
    with pytest.raises(InvalidRequest) as caught:
        WIDE.resolve(50, None, 1)
    assert caught.value.message == "output_dim must be a multiple of 32 between 32 and 2560, got 50"
    assert caught.value.param == "output_dim"


def test_the_message_uses_the_name_that_the_client_used() -> None:
    with pytest.raises(InvalidRequest) as caught:
        WIDE.resolve(None, 50, 1)
    assert caught.value.message == "dimensions must be a multiple of 32 between 32 and 2560, got 50"
    assert caught.value.param == "dimensions"


@pytest.mark.parametrize(
    ("width", "step", "words"),
    [
        (1000, 32, "a multiple of 32 between 32 and 992, or 1000"),
        (2560, 1, "a multiple of 1 between 1 and 2560"),
        (24, 32, "24"),
        (384, 64, "a multiple of 64 between 64 and 384"),
    ],
)
def test_the_range_in_words(width: int, step: int, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        DimensionRule.of(width, step, None).resolve(-7, None, 1)
    assert caught.value.message == f"output_dim must be {words}, got -7"


@pytest.mark.parametrize("value", [0, -32, 33, 2592, 10**30, 64.0, 64.5, "64", True, False, {}, {"a": 1}, [[64]]])
def test_everything_else_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        WIDE.resolve(value, None, 1)
    assert caught.value.param in ("output_dim", "output_dim[0]")
    assert len(caught.value.message) < 200


def test_a_huge_value_is_not_echoed_at_length() -> None:
    for value in ("9" * 10_000, 10**300, {"key": "x" * 5000}):
        with pytest.raises(InvalidRequest) as caught:
            WIDE.resolve(value, None, 1)
        assert len(caught.value.message) < 200


@given(dims=st.lists(st.one_of(st.none(), st.integers(1, 80).map(lambda place: 32 * place)), min_size=1, max_size=9))
def test_one_dimension_an_input(dims: list[int | None]) -> None:
    expected = [1024 if dim is None else dim for dim in dims]
    assert WIDE.resolve(dims, None, len(dims)) == expected
    assert WIDE.resolve(None, dims, len(dims)) == expected


def test_a_wrong_entry_of_a_list_is_named() -> None:
    with pytest.raises(InvalidRequest) as caught:
        WIDE.resolve([32, 64, 50], None, 3)
    assert caught.value.param == "output_dim[2]"
    assert caught.value.message == "output_dim[2] must be a multiple of 32 between 32 and 2560, got 50"


@pytest.mark.parametrize("count", [1, 3, 0])
def test_a_list_of_another_length_is_refused(count: int) -> None:
    with pytest.raises(InvalidRequest, match=rf"output_dim has 2 entries for {count} inputs"):
        WIDE.resolve([32, 64], None, count)


def test_both_names_may_agree_but_not_differ() -> None:
    assert WIDE.resolve(64, 64, 1) == [64]
    assert WIDE.resolve([64, 32], [64, 32], 2) == [64, 32]
    with pytest.raises(InvalidRequest, match="output_dim and dimensions differ: 64 and 32") as caught:
        WIDE.resolve(64, 32, 1)
    assert caught.value.param == "output_dim"


@pytest.mark.parametrize("default", ["50", "0", "natve", "4096", "-32", "", "1e3"])
def test_a_default_that_is_not_allowed_is_a_configuration_error(default: str) -> None:
    with pytest.raises(ConfigError, match="--default-dim must be native or a multiple of 32 between 32 and 2560"):
        DimensionRule.of(2560, 32, default)


@pytest.mark.parametrize("step", [0, -1])
def test_a_step_must_be_positive(step: int) -> None:
    with pytest.raises(ConfigError, match="--dim-step must be at least 1"):
        DimensionRule.of(2560, step, None)

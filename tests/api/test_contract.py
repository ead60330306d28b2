"""/openapi.json as a contract: requests made from it, fitting and not, get answers that it describes; never a 5xx."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    negative_data_rejection,
    positive_data_acceptance,
    unsupported_method,
)

from anydim import testing

# Unknown fields and any content type are accepted on purpose, so that what does not fit may still be answered with 200.
# Which dimensions and prompts there are is the model's to say, so that what fits the types may still be refused.
LENIENT = [negative_data_rejection, positive_data_acceptance, unsupported_method]
FEW = settings(
    max_examples=10,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@pytest.fixture(scope="module")
def described() -> Iterator[Any]:
    with testing.app() as app:
        yield schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_answers_are_those_that_are_described(described: Any, mode: GenerationMode) -> None:
    operations = [result.ok() for result in described.get_all_operations()]
    assert len(operations) > 8
    for operation in operations:

        @FEW
        @given(case=operation.as_strategy(generation_mode=mode))
        def holds(case: schemathesis.Case) -> None:
            case.call_and_validate(excluded_checks=LENIENT)

        try:
            holds()
        except Unsatisfiable:  # nothing about a GET without parameters can be wrong
            assert mode is GenerationMode.NEGATIVE and operation.method == "get"

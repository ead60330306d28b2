"""The checker of the chaos run finds what it is there to find: one component off, one vector too few."""

import base64
import json

import numpy as np
import pytest

from benchmarks.chaos import Checker

REFERENCE = np.random.default_rng(3).normal(size=(4, 64)).astype(np.float32)


def answer(places: list[int], dim: int, off: float = 0.0) -> bytes:
    rows = []
    for place in places:
        part = REFERENCE[place, :dim] / np.linalg.norm(REFERENCE[place, :dim])
        part[-1] += off
        rows.append({"embedding": base64.b64encode(part.astype("<f4").tobytes()).decode()})
    return json.dumps({"data": rows}).encode()


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (answer([2, 0], 32), 0),
        (answer([2, 0], 32, off=3e-4), 1),
        (answer([0, 2], 32), 1),
        (answer([2], 32), 1),
        (answer([2, 0], 64), 1),
        (answer([2, 0], 32, off=np.nan), 1),
    ],
)
def test_the_checker_sees_it(content: bytes, wrong: int) -> None:
    checker = Checker(0, ["a", "b", "c", "d"], REFERENCE)
    checker._check([2, 0], 32, content)
    assert checker.wrong == wrong

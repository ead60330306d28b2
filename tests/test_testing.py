"""The fake model is what its documentation says, and the examples of docs/testing.md run as they stand."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anydim import testing
from anydim.errors import ConfigError, MissingExtra
from anydim.intake.request import EmbedRequest
from anydim.types import OutputDtype

PAGE = (Path(__file__).parents[1] / "docs" / "testing.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def counted(text: str) -> list[int]:
    """The counts of a text without special tokens, by plain Python."""
    low = "".join(chr(byte).lower() if byte < 128 else "\x80" for byte in text.encode())
    letters = [low.count(chr(97 + index)) for index in range(26)]
    digits = sum(character in "0123456789" for character in low)
    spaces = sum(character in " \t\n\r\v\f" for character in low)
    foreign = low.count("\x80")
    other = len(low) - sum(letters) - digits - spaces - foreign
    upper = [text.count(chr(65 + index)) for index in range(26)]
    marks = [text.count(mark) for mark in ".,?!-'"]
    return [*letters, digits, spaces, other, foreign, 1, len(low), *upper, *marks]


def embed(texts: list[str], model: testing.FakeModel | None = None, **settings: object) -> list[np.ndarray]:
    items = testing.intake(model, **settings).prepare(EmbedRequest(inputs=texts, normalize=False))
    with testing.engine(model, **settings) as engine:
        return [output.values for output in asyncio.run(engine.run(items))]


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_examples_run(example: str) -> None:
    exec(example, {})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=60).filter(lambda text: testing.END not in text), min_size=1, max_size=8))
def test_vectors_are_the_counts(texts: list[str]) -> None:
    for text, values in zip(texts, embed(texts), strict=True):
        assert values.tolist() == counted(text)
        assert testing.FakeModel().vector(text).tolist() == counted(text)


def test_long_texts_in_many_batches() -> None:
    texts = ["ab" * length for length in (4000, 1, 0, 700)] * 3
    found = embed(texts, max_batch_tokens=2000)
    assert [values[:2].tolist() for values in found] == [[len(text) / 2] * 2 for text in texts]


@pytest.mark.parametrize("width", [32, 64, 100, 2560])
def test_any_width(width: int) -> None:
    model = testing.FakeModel(width=width)
    [values] = embed(["Hello"], model, default_dim="native")
    assert values.tolist() == np.resize(counted("Hello"), width).tolist() == model.vector("Hello").tolist()


def test_dimensions_and_dtypes_are_those_of_the_real_heads() -> None:
    request = EmbedRequest(inputs=["hello"], output_dim=32, output_dtype=OutputDtype.UBINARY)
    with testing.engine() as engine:
        [output] = asyncio.run(engine.run(testing.intake().prepare(request)))
    assert np.unpackbits(output.values).tolist() == [int(count > 0) for count in counted("hello")[:32]]


def test_prompts_and_names() -> None:
    model = testing.FakeModel(name="me/mine", prompts={"query": "q", "task": "zz"}, default_prompt="task")
    with testing.client(model) as http:
        answer = http.post("/v1/embeddings", json={"input": "a", "model": "mine", "normalize": False}).json()
    assert answer["model"] == "me/mine"
    assert answer["data"][0]["embedding"] == counted("zza")


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError), testing.client(dim_step="many"):
        pass
    with pytest.raises(ConfigError, match="did you mean dim_step"), testing.client(dim_stepp=1):
        pass


def test_without_a_client_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "starlette.testclient", None)
    with pytest.raises(MissingExtra, match="pip install"), testing.client():
        pass


def test_leaves_no_threads_behind() -> None:
    import threading

    before = threading.active_count()
    for _ in range(3):
        with testing.engine():
            pass
    assert threading.active_count() == before

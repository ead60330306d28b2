"""Advice: the smallest form that surely keeps what was asked, and an honest word where the data are too few."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from anydim.quality.advise import Advice, advise
from anydim.quality.chart import draw_page, draw_picture, size_words
from anydim.quality.forms import Form, Rows, all_forms
from anydim.quality.intervals import draws, means
from anydim.quality.outcome import Outcome, Told, one_by_one
from anydim.quality.ranking import sampled
from anydim.types import OutputDtype
from tests.quality.rows import hidden_structure

DIMS = (32, 64, 96, 128)
FLOATS = (OutputDtype.FLOAT32,)


class Known:
    """A task whose worth is known: each unit has a value at each dimension."""

    units = "some units"

    def __init__(self, values: dict[int, Sequence[float]]) -> None:
        self.values = {dim: np.array(column) for dim, column in values.items()}
        self.count = len(next(iter(self.values.values())))

    def measure(self, form: Form) -> Outcome:
        column = self.values[form.dim]
        return Outcome("worth", {"worth": float(column.mean())}, means(column, draws(self.count)))

    def measure_each(self, forms: Sequence[Form], told: Told) -> list[Outcome]:
        return one_by_one(self.measure, forms, told)


def spread_around(mean: float, spread: float, count: int) -> list[float]:
    return [mean + spread * (-1) ** place for place in range(count)]


def advice_of(count: int, keep: float = 0.95) -> Advice:
    worth = {32: 0.5, 64: 0.97, 96: 0.99, 128: 1.0}
    task = Known({dim: spread_around(mean, 0.3 if dim == 64 else 0, count) for dim, mean in worth.items()})
    return advise(task, all_forms(DIMS, FLOATS, (False,)), 128, keep)


def test_enough_data_give_the_smallest_form() -> None:
    found = advice_of(2000)
    assert (found.recommended.form.dim, found.is_sure) == (64, True)
    assert found.words.startswith("Use 64 x float32: it keeps 97.0 [")
    assert "2.0 times fewer than full" in found.words


def test_too_few_data_are_said_to_be_too_few() -> None:
    found = advice_of(20)
    assert (found.recommended.form.dim, found.likely.form.dim, found.is_sure) == (96, 64, False)
    assert "64 x float32 may do as well" in found.words
    assert found.words.endswith("some units are too few to tell.")


def test_full_vectors_stay_where_nothing_keeps_enough() -> None:
    found = advice_of(2000, keep=0.999)
    assert found.recommended is found.full
    assert found.words == "Keep full vectors: no smaller form keeps 99.9 % of their worth."


def test_the_front_only_rises() -> None:
    rows = Rows(hidden_structure(400, 128, decay=0.97))
    forms = all_forms(DIMS, tuple(OutputDtype), (False,))
    found = advise(sampled(rows, 10, 100), forms, 128, 0.9)
    assert len(found.rows) == len(forms)
    front = [(row.form.bytes, row.value) for row in found.front]
    assert front == sorted(front)
    assert all(row.value <= best for row in found.rows for size, best in front[-1:] if row.form.bytes <= size)
    assert found.full.share.value == 1


def test_charts_hold_every_form_and_need_no_network(tmp_path: Path) -> None:
    found = advice_of(200)
    draw_picture(found, "Known <worth>", tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    draw_page(found, "Known <worth>", 1000, tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "Known &lt;worth&gt;" in page
    assert page.count("<tr class=") == len(DIMS)
    assert 'src="http' not in page
    assert "plotly.js v" in page


def test_rows_are_plain_values() -> None:
    row = advice_of(200).rows[0].as_row(1000)
    assert json.loads(json.dumps(row)) == row
    assert (row["bytes"], row["index_bytes"]) == (128, 128_000)


@pytest.mark.parametrize(("size", "words"), [(900, "900 bytes"), (1.5e9, "1.5 GB"), (4e15, "4,000 TB")])
def test_sizes_in_words(size: float, words: str) -> None:
    assert size_words(size).replace("4e+03", "4,000") == words

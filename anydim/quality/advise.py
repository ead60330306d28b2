"""Advise: which form keeps a stated share of what full vectors are worth to a task, in the fewest bytes.

Every form is measured on the same data and the same resamples. A form is recommended where the lower end of its
interval keeps the share; where only the figure itself does, the data are too few to tell, and that is said. It knows
tasks and forms; it knows no files and no charts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anydim.errors import InvalidRequest
from anydim.quality.forms import Form, families
from anydim.quality.intervals import Interval, ratio
from anydim.quality.outcome import Outcome, Task
from anydim.types import OutputDtype

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One form and what it is worth.

    Attributes:
        form: dimension, type, and whether it is fitted.
        metrics: each by name.
        value: the decisive one.
        share: of the full form's value.
        search_ms: of one exact search over the stated number of vectors; None where it was not measured.
    """

    form: Form
    metrics: Mapping[str, float]
    value: float
    share: Interval
    search_ms: float | None = None

    def as_row(self, count: int) -> dict[str, Any]:
        """The same as plain values, with the bytes of an index of ``count`` vectors."""
        return {
            "dim": self.form.dim,
            "dtype": self.form.dtype.value,
            "fitted": self.form.fitted,
            "bytes": self.form.bytes,
            "index_bytes": count * self.form.bytes,
            "value": self.value,
            **self.metrics,
            "share": self.share.value,
            "share_low": self.share.low,
            "share_high": self.share.high,
            "search_ms": self.search_ms,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What was measured and what follows.

    Attributes:
        metric: the decisive one.
        units: how much evidence there is, in words.
        keep: the share to keep.
        rows: every form, the smallest first.
        full: the form that the others are compared with.
    """

    metric: str
    units: str
    keep: float
    rows: Sequence[Measured]
    full: Measured

    @property
    def recommended(self) -> Measured:
        """The smallest form that surely keeps the share; the full one where no other does."""
        return next((row for row in self.rows if row.share.low >= self.keep), self.full)

    @property
    def likely(self) -> Measured:
        """The smallest form whose figure keeps the share, sure or not."""
        return next((row for row in self.rows if row.share.value >= self.keep), self.full)

    @property
    def is_sure(self) -> bool:
        """Whether the data are enough to tell."""
        return self.likely.form.bytes >= self.recommended.form.bytes

    @property
    def words(self) -> str:
        """What to do, in a few sentences."""
        best, maybe = self.recommended, self.likely
        kept = f"keeps {best.share.words(100, 1)} % of {self.metric} at {best.form.bytes:,} bytes a vector"
        if best.form == self.full.form and self.is_sure:
            return f"Keep full vectors: no smaller form keeps {100 * self.keep:g} % of their {self.metric}."
        if self.is_sure:
            return (
                f"Use {best.form.name}: it {kept}, {self.full.form.bytes / best.form.bytes:.1f} times fewer than full."
            )
        too_few = (
            f"{maybe.form.name} may do as well ({maybe.share.words(100, 1)} %, {maybe.form.bytes:,} bytes), but "
            f"{self.units} are too few to tell."
        )
        if best.form == self.full.form:
            return f"These data are too few to recommend less than full vectors. {too_few}"
        return f"Use {best.form.name}: it {kept}. {too_few}"

    @property
    def front(self) -> list[Measured]:
        """The forms of which no smaller one is better: the Pareto front, the smallest first."""
        kept: list[Measured] = []
        for row in self.rows:
            if not kept or row.value > kept[-1].value:
                kept.append(row)
        return kept


def advise(
    task: Task,
    forms: Sequence[Form],
    width: int,
    keep: float,
    search_ms: Callable[[Form], float] | None = None,
    progress: Progress = lambda *_: None,
) -> Advice:
    """Measure every form.

    Args:
        task: what vectors are for, on the user's data.
        forms: what to measure.
        width: of full vectors.
        keep: the share of the full form's metric to keep.
        search_ms: how long an exact search with a form takes.
        progress: told how many forms are done.

    Raises:
        InvalidRequest: full vectors fail at the task already.
    """
    full = Form(width, OutputDtype.FLOAT32)
    whole = task.measure(full)
    if whole.value <= 0:
        raise InvalidRequest(
            f"full vectors have {whole.metric} {whole.value:.3f}: there is nothing to keep; check the labels"
        )
    rows = [_measured(full, whole, whole, search_ms)]
    for form, outcome in _each(task, [form for form in forms if form != full], progress):
        rows.append(_measured(form, outcome, whole, search_ms))
    rows.sort(key=lambda row: (row.form.bytes, -row.value, row.form.fitted))
    return Advice(
        metric=whole.metric,
        units=task.units,
        keep=keep,
        rows=rows,
        full=next(row for row in rows if row.form == full),
    )


def _each(task: Task, forms: Sequence[Form], progress: Progress) -> Iterator[tuple[Form, Outcome]]:
    """Forms that differ in their dimension alone are measured together, which is less work."""
    done = 0
    for family in families(forms):

        def told(share: float, family: Sequence[Form] = family, done: int = done) -> None:
            progress(family[-1].kind, done + int(share * len(family)), len(forms))

        told(0)
        yield from zip(family, task.measure_each(family, told), strict=True)
        done += len(family)


def _measured(form: Form, outcome: Outcome, whole: Outcome, search_ms: Callable[[Form], float] | None) -> Measured:
    return Measured(
        form=form,
        metrics=outcome.metrics,
        value=outcome.value,
        share=ratio(outcome.value, whole.value, outcome.resampled_R, whole.resampled_R),
        search_ms=search_ms(form) if search_ms else None,
    )

"""Progress bars for long work on a terminal: one place that decides how they look. Knows no models."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


@contextmanager
def progress_bar(title: str, wanted: bool, unit: str = "bytes") -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error; yields the function to call with (stage, done, total).

    Args:
        title: what is being done.
        wanted: whether to draw at all.
        unit: ``bytes`` shows sizes and bytes a second; any other word is counted.

    Nothing is drawn where standard error is no terminal.
    """
    if not wanted or not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    amount = (DownloadColumn(), TransferSpeedColumn()) if unit == "bytes" else (MofNCompleteColumn(), TextColumn(unit))
    columns = (TextColumn("{task.description}"), BarColumn(), *amount, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda stage, done, total: bar.update(task, description=f"{title} ({stage})", completed=done, total=total)

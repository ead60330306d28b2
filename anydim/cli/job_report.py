"""Job report: the bar of a job while it runs, and its line of figures at the end.

It knows jobs and the terminal; it knows no models.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import click

from anydim.offline.job import Done, Job
from anydim.offline.records import count_records
from anydim.progress import progress_bar

Bar = AbstractContextManager[Callable[[Done], None]]


def drawn(title: str, job: Job, wanted: bool) -> Bar:
    """What draws a job's progress, and on Ctrl-C says how it goes on; the rows are counted at once.

    Raises:
        InvalidRequest, MissingExtra: an input cannot be read.
    """
    return _drawn(title, count_records(job.inputs, job.reading), wanted)


@contextlib.contextmanager
def _drawn(title: str, total: int, wanted: bool) -> Iterator[Callable[[Done], None]]:
    with progress_bar(title, wanted, unit="rows") as draw:
        try:
            yield lambda done: draw(_rate(done), done.rows, max(total, done.rows))
        except KeyboardInterrupt:
            click.echo("Stopped. The same command with --resume goes on with the last shard.", err=True)
            raise


def tell(done: Done, job: Job, made: str, noun: str) -> int:
    """Say what was done; the exit code, 1 where rows failed.

    Args:
        done: what was done.
        job: what was asked for.
        made: what the output holds, in words.
        noun: one of these.
    """
    counted = "1 row" if done.rows == 1 else f"{done.rows:,} rows"
    click.echo(f"{counted} in {done.seconds:.1f}s ({_rate(done)}); {made} in {job.output}")
    if done.failed:
        rows = "1 row has" if done.failed == 1 else f"{done.failed:,} rows have"
        click.echo(f"{rows} no {noun}; {job.output}.errors.jsonl says why", err=True)
        click.echo(f"The first: {done.first_failure}", err=True)
    return 1 if done.failed else 0


def _rate(done: Done) -> str:
    seconds = max(done.seconds, 1e-9)
    return f"{done.texts / seconds:,.0f} texts/s, {done.tokens / seconds:,.0f} tokens/s"

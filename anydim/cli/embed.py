"""Embed: `anydim embed`, from files of texts to a file of vectors, with a bar while it runs and a line of figures.

It knows the command's words and the library; what a job is, is said in offline/.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import click

from anydim.config import Settings, changed
from anydim.deploy.pool import Pool, prepare
from anydim.embedder import Embedder
from anydim.errors import MissingExtra
from anydim.offline.job import Done, EmbedJob, run_job
from anydim.offline.records import count_records
from anydim.progress import progress_bar

Bar = AbstractContextManager[Callable[[Done], None]]


def run_embed(settings: Settings, job: EmbedJob, pool: Pool | None = None) -> int:
    """Do it, and say what was done.

    Args:
        settings: of the model and the engine.
        job: what is asked for.
        pool: the actors of a Ray cluster; None to work in this process.

    Returns:
        The exit code: 1 where rows have no vector, else 0.

    Raises:
        AnydimError: as offline.job.run_job and deploy.ray_data.embed_on_ray.
    """
    with_bar = settings.server.enable_tqdm
    bar = _bar(count_records(job.inputs, job.reading), with_bar)
    model = {**changed(settings.model), **changed(settings.engine)}
    try:
        done = _here(model, job, bar, with_bar) if pool is None else _on_ray(model, job, bar, pool)
    except KeyboardInterrupt:
        click.echo("Stopped. The same command with --resume goes on with the last shard.", err=True)
        raise
    click.echo(
        f"{done.rows:,} rows in {done.seconds:.1f}s ({_rate(done)}); vectors of {done.dim} {job.output_dtype.value} "
        f"components in {job.output}"
    )
    if done.failed:
        rows = "1 row has" if done.failed == 1 else f"{done.failed:,} rows have"
        click.echo(f"{rows} no vector; {job.output}.errors.jsonl says why", err=True)
    return 1 if done.failed else 0


def _here(model: Mapping[str, Any], job: EmbedJob, bar: Bar, with_bar: bool) -> Done:
    with Embedder(**model, show_progress=with_bar) as embedder, bar as show:
        return run_job(embedder, job, show)


def _on_ray(model: Mapping[str, Any], job: EmbedJob, bar: Bar, pool: Pool) -> Done:
    prepare(pool.address)
    try:
        from anydim.deploy.ray_data import embed_on_ray
    except ModuleNotFoundError as error:
        raise MissingExtra(f"--ray needs a package ({error.name}): pip install 'anydim[ray]'") from None
    with bar as show:
        return embed_on_ray(model, job, pool, show)


@contextlib.contextmanager
def _bar(total: int, wanted: bool) -> Iterator[Callable[[Done], None]]:
    with progress_bar("Embedding", wanted, unit="rows") as draw:
        yield lambda done: draw(_rate(done), done.rows, max(total, done.rows))


def _rate(done: Done) -> str:
    seconds = max(done.seconds, 1e-9)
    return f"{done.texts / seconds:,.0f} texts/s, {done.tokens / seconds:,.0f} tokens/s"

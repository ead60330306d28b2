"""Embed: `anydim embed`, from files of texts to a file of vectors, with a bar while it runs and a line of figures.

It knows the command's words and the library; what a job is, is said in offline/.
"""

from __future__ import annotations

import click

from anydim.config import Settings, changed
from anydim.embedder import Embedder
from anydim.offline.job import Done, EmbedJob, run_job
from anydim.offline.records import count_records
from anydim.progress import progress_bar


def run_embed(settings: Settings, job: EmbedJob) -> int:
    """Do it, and say what was done.

    Returns:
        The exit code: 1 where rows have no vector, else 0.

    Raises:
        AnydimError: as offline.job.run_job.
    """
    with_bar = settings.server.enable_tqdm
    total = count_records(job.inputs, job.reading)
    model = {**changed(settings.model), **changed(settings.engine)}
    with (
        Embedder(**model, show_progress=with_bar) as embedder,
        progress_bar("Embedding", with_bar, unit="rows") as draw,
    ):

        def show(done: Done) -> None:
            draw(_rate(done), done.rows, max(total, done.rows))

        try:
            done = run_job(embedder, job, show)
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


def _rate(done: Done) -> str:
    seconds = max(done.seconds, 1e-9)
    return f"{done.texts / seconds:,.0f} texts/s, {done.tokens / seconds:,.0f} tokens/s"

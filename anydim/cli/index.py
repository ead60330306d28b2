"""Index: `anydim index`, from files to an index, with a bar while it runs and a line of figures at the end.

It knows the command's words and the library; what an index is, is said in retrieval/.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from anydim.config import Settings, changed
from anydim.embedder import Embedder
from anydim.errors import ConfigError
from anydim.progress import progress_bar
from anydim.retrieval.documents import Columns, Refusal, count_documents, read_documents
from anydim.retrieval.index import Index, Report
from anydim.retrieval.store import without_password

_SHOWN: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexJob:
    """What one call of the command is asked to do.

    Attributes:
        docs: files and folders.
        text_field: fields of a row that hold text.
        id_field: the field of a row that holds its id.
        prune: whether documents that are not among ``docs`` are removed.
        delete: ids to remove.
    """

    docs: tuple[Path, ...]
    text_field: tuple[str, ...]
    id_field: str
    prune: bool
    delete: tuple[str, ...]


def run_index(settings: Settings, job: IndexJob) -> int:
    """Do it, and say what was done.

    Returns:
        The exit code: 1 where something could not be indexed, else 0.

    Raises:
        ConfigError: there is nothing to do, or a setting does not fit.
        InvalidRequest: a path is not there or of no known kind.
    """
    if not job.docs and not job.delete:
        raise ConfigError("nothing to index: name files or folders, or --delete ID")
    if job.prune and not job.docs:
        raise ConfigError("--prune without documents would empty the index; name the documents that stay")
    total = count_documents(job.docs)
    with opened_index(settings) as index:
        if job.delete:
            click.echo(f"Removed {index.delete(job.delete)} of {len(job.delete)} documents.")
        return _add(index, job, total, settings.server.enable_tqdm) if job.docs else 0


@contextmanager
def opened_index(settings: Settings) -> Iterator[Index]:
    """The index that the settings name, with its model.

    Raises:
        ConfigError: --db is missing or does not fit.
    """
    if settings.index.db is None:
        raise ConfigError("--db is missing: a folder for the index, or the address of a database")
    model = {**changed(settings.model), **changed(settings.engine)}
    with (
        Embedder(**model, show_progress=settings.server.enable_tqdm) as embedder,
        Index(embedder=embedder, **changed(settings.index)) as index,
    ):
        yield index


def _add(index: Index, job: IndexJob, total: int, with_bar: bool) -> int:
    began = time.perf_counter()
    columns = Columns(text=job.text_field, id=job.id_field)
    try:
        with progress_bar("Indexing", with_bar, unit="documents") as draw:
            report = index.add(
                read_documents(job.docs, columns),
                prune=job.prune,
                progress=lambda done: draw(index.settings.collection, done, max(total, done)),
            )
    except KeyboardInterrupt:
        click.echo(
            f"Stopped. {index.count():,} chunks are in the index; the same command goes on from there.", err=True
        )
        raise
    click.echo(_summary(report, index, time.perf_counter() - began))
    _show_refusals(report.refusals, job.prune)
    return 1 if report.refusals else 0


def _summary(report: Report, index: Index, seconds: float) -> str:
    counts = ", ".join(
        f"{count:,} {word}"
        for word, count in (
            ("added", report.added),
            ("updated", report.updated),
            ("unchanged", report.unchanged),
            ("removed", report.removed),
        )
    )
    place = without_password(index.settings.db or "")
    return f"Documents: {counts}. Wrote {report.chunks:,} chunks in {seconds:.1f}s; {place} holds {index.count():,}."


def _show_refusals(refusals: list[Refusal], prune: bool) -> None:
    for refusal in refusals[:_SHOWN]:
        click.echo(f"Not indexed: {refusal.where}: {refusal.reason}", err=True)
    if len(refusals) > _SHOWN:
        click.echo(f"Not indexed: {len(refusals) - _SHOWN:,} more", err=True)
    if refusals and prune:
        click.echo("Nothing was pruned, since not every document could be read.", err=True)

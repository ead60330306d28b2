"""Search: `anydim search`, hits with what each stage kept and how long it took, for people or as JSON.

It knows the command's words and the library; what a stage is, is said in retrieval/.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from anydim.cli.index import opened_index
from anydim.config import Settings
from anydim.reranker import Reranker
from anydim.retrieval.stages import Hit, Score, SearchResult, Stage

_LONGEST: Final = 240  # characters of a hit


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchJob:
    """What one call of the command is asked to do.

    Attributes:
        query: a text.
        where: conditions such as ``year>=2020``.
        instruction: the task, or None.
        per_document: whether a document may be hit once only.
        reranker: a reranking model for a third stage, or None.
        as_json: whether to print one JSON object.
    """

    query: str
    where: tuple[str, ...]
    instruction: str | None
    per_document: bool
    reranker: str | None
    as_json: bool


def run_search(settings: Settings, job: SearchJob) -> None:
    """Search, and print what was found.

    Raises:
        ConfigError: there is no such index, or it was made with another model.
        InvalidRequest: a condition does not fit the index.
    """
    with opened_index(settings) as index, _third_stage(settings, job.reranker) as score:
        found = index.search(
            job.query,
            where=job.where,
            instruction=job.instruction,
            per_document=job.per_document,
            score=score,
            score_name=job.reranker or "",
        )
    if job.as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(asdict(found)), indent=2).decode())
    else:
        _print(found)


@contextlib.contextmanager
def _third_stage(settings: Settings, reranker: str | None) -> Iterator[Score | None]:
    """How a reranker scores, on the device of the other model; None without one."""
    if reranker is None:
        yield None
        return
    engine = {"device": settings.engine.device, "threads": settings.engine.threads}
    with Reranker(reranker, show_progress=settings.server.enable_tqdm, **engine) as running:
        yield running.score


def _print(found: SearchResult) -> None:
    console = Console(highlight=False)
    for place, hit in enumerate(found.hits, 1):
        console.print(f"[bold]{place:>3}  {hit.score:.4f}  {escape(hit.document)}[/bold]  {escape(_facts(hit))}")
        console.print(f"     {escape(_shortened(hit.text))}")
    if not found.hits:
        console.print("Nothing was found.")
    console.print(_stages(found.stages))


def _facts(hit: Hit) -> str:
    values = [f"{name}={value}" for name, value in hit.metadata.items() if isinstance(value, str | int | float)]
    return ", ".join([f"chunk {hit.chunk}", *values])


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."


def _stages(stages: list[Stage]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("stage", "by"):
        table.add_column(title)
    for title in ("kept", "ms"):
        table.add_column(title, justify="right")
    for stage in stages:
        table.add_row(stage.name, stage.by, f"{stage.candidates:,}", f"{stage.milliseconds:.1f}")
    return table

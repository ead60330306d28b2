"""Quality data: the files behind `anydim fit` and `anydim advise` as full rows, embedded where they hold texts.

It composes files, a model and a progress bar; it knows no task.

Legend: N documents, Q queries, D full dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import click

from anydim.cli.quality_options import DataJob
from anydim.config import Settings, changed
from anydim.embedder import Embedder
from anydim.errors import InvalidRequest
from anydim.models.card import ModelCard
from anydim.models.registry import find_model
from anydim.progress import progress_bar
from anydim.quality.corpus import Columns, Corpus, read_corpus, told_skipped, with_vectors
from anydim.quality.labels import read_labels
from anydim.types import Float32Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """What the user brought.

    Attributes:
        name: of the corpus' file.
        card: the model's, or None where stored vectors come without its name.
        documents_ND: full rows.
        queries_QD: full rows, or None where there are no queries.
        labels: of each query, or None where there are none.
        fields: further fields of the corpus by name.
    """

    name: str
    card: ModelCard | None
    documents_ND: Float32Array
    queries_QD: Float32Array | None
    labels: Sequence[dict[int, int]] | None
    fields: Mapping[str, Sequence[Any]]


@contextmanager
def no_result_if_stopped() -> Iterator[None]:
    """Say after Ctrl-C what has become of the result; files are put in their place only when they are whole."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo("Stopped: no result was written.", err=True)
        raise


def columns_of(job: DataJob) -> Columns:
    """Which fields of a row are what."""
    return Columns(text=job.text_field, id=job.id_field, vector=job.vector_field)


def told(corpus: Corpus) -> None:
    """Say which rows were passed over."""
    for line in told_skipped(corpus):
        click.echo(line, err=True)


def read_data(settings: Settings, job: DataJob, more: Sequence[str] = ()) -> Data:
    """Read the files with the fields ``more``, and embed the texts among them.

    Raises:
        InvalidRequest: a file cannot be used.
    """
    columns = columns_of(job)
    corpus = read_corpus(job.corpus, columns, more)
    queries = read_corpus(job.queries, columns) if job.queries else None
    labels = read_labels(job.qrels, queries.ids, corpus.ids) if job.qrels and queries else None
    for found in filter(None, (corpus, queries)):
        told(found)
    card, (documents, asked) = embedded(settings, [(corpus, "document"), (queries, "query")])
    assert documents is not None, "what went in comes out"
    return Data(
        name=corpus.name,
        card=card,
        documents_ND=documents.rows,
        queries_QD=asked.rows if asked else None,
        labels=labels,
        fields=corpus.fields,
    )


def read_pairs(settings: Settings, job: DataJob, names: tuple[str, str], score: str) -> Data:
    """Read pairs of texts or of stored vectors from one file: the first are documents, the second queries.

    Raises:
        InvalidRequest: the file cannot be used.
    """
    first, second = (
        read_corpus(job.corpus, replace(columns_of(job), text=name, vector=name), more)
        for name, more in zip(names, ((score,), ()), strict=True)
    )
    if list(first.ids) != list(second.ids):
        skipped = [*first.skipped, *second.skipped]
        raise InvalidRequest(f"{job.corpus}: a pair lacks one of its texts: {skipped[0]}", "corpus")
    card, (left, right) = embedded(settings, [(first, None), (second, None)])
    assert left is not None and right is not None, "what went in comes out"
    return Data(
        name=first.name, card=card, documents_ND=left.rows, queries_QD=right.rows, labels=None, fields=first.fields
    )


def embedded(
    settings: Settings, given: Sequence[tuple[Corpus | None, str | None]]
) -> tuple[ModelCard | None, list[Corpus | None]]:
    """Corpora with vectors of one model, which is loaded only where one holds texts.

    Vectors that are stored need no model; where it is named all the same, its card is read.

    Args:
        settings: of the model and the engine.
        given: corpora, each with the input type of its texts.

    Raises:
        InvalidRequest: vectors are of different widths, or not of the model's.
    """
    card: ModelCard | None = None
    if any(corpus is not None and corpus.vectors_ND is None for corpus, _ in given):
        with _embedder(settings) as embedder:
            card = embedder.card
            found = [_with_bar(corpus, embedder, kind, settings.server.enable_tqdm) for corpus, kind in given]
    else:
        found = [corpus for corpus, _ in given]
        if settings.model.model is not None:
            with progress_bar("Preparing the model", settings.server.enable_tqdm) as progress:
                card = find_model(settings.model, progress)
    _check_widths([corpus for corpus in found if corpus is not None], card)
    return card, found


def _check_widths(corpora: Sequence[Corpus], card: ModelCard | None) -> None:
    width, owner = (card.width, card.name) if card else (corpora[0].rows.shape[1], corpora[0].name)
    for corpus in corpora:
        if corpus.rows.shape[1] != width:
            raise InvalidRequest(
                f"{corpus.name} holds vectors of {corpus.rows.shape[1]} components, {owner} has {width}: full vectors "
                "of one model are needed",
                "corpus",
            )


def _with_bar(corpus: Corpus | None, embedder: Embedder, kind: str | None, with_bar: bool) -> Corpus | None:
    if corpus is None:
        return None
    with progress_bar(f"Embedding {corpus.name}", with_bar, unit="texts") as progress:
        return with_vectors(corpus, embedder, kind, progress)


@contextmanager
def _embedder(settings: Settings) -> Iterator[Embedder]:
    model = {**changed(settings.model), **changed(settings.engine)}
    with Embedder(**model, show_progress=settings.server.enable_tqdm) as running:
        yield running

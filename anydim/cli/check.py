"""Check: `anydim check`, of a model in this process or of a server at a URL, with a verdict and figures.

It knows the command's words, files and where the report goes; what is checked is said in quality/.

Legend: N documents, Q queries, d components.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
import msgspec

from anydim.cli.quality_data import columns_of, told
from anydim.cli.quality_options import CheckJob
from anydim.config import Settings, changed
from anydim.embedder import Embedder
from anydim.errors import ConfigError, InvalidRequest
from anydim.progress import progress_bar
from anydim.quality.check import Finding, Shown, check_synonyms, check_translations, search_own
from anydim.quality.corpus import Corpus, read_corpus
from anydim.quality.extra import need
from anydim.quality.labels import read_labels
from anydim.quality.report import as_page, as_text, as_values, has_passed
from anydim.quality.selfcheck import self_check
from anydim.quality.subject import LocalSubject, ServedSubject, Subject

_PARTS: Final = 3


def run_check(settings: Settings, job: CheckJob) -> int:
    """Do it, and say what holds.

    Returns:
        The exit code: 1 where something failed, else 0.

    Raises:
        ConfigError: a setting does not fit.
        InvalidRequest: a file of the user cannot be used.
        Unavailable: the server does not answer.
        MissingExtra: a package of the extra is missing.
    """
    need("sklearn")
    own = _own(job)
    with (
        _subject(settings, job) as (subject, folder),
        progress_bar("Checking", settings.server.enable_tqdm, unit="steps") as progress,
    ):
        progress("meanings", 0, _PARTS)
        findings = [*check_synonyms(subject, settings.check), *check_translations(subject, settings.check)]
        progress("own search", 1, _PARTS)
        shown: list[Shown] = []
        if own is not None:
            shown, finding = _search(subject, *own)
            findings.append(finding)
        progress("laws", 2, _PARTS)
        findings += self_check(subject, folder)
        name = subject.name
    _publish(name, findings, shown, job)
    return 0 if has_passed(findings) else 1


@contextmanager
def _subject(settings: Settings, job: CheckJob) -> Iterator[tuple[Subject, Path | None]]:
    """What is checked, and the model's files where they are at hand."""
    if job.url is not None:
        served = ServedSubject(job.url, settings.model.model, job.key)
        try:
            yield served, None
        finally:
            served.close()
        return
    model = {**changed(settings.model), **changed(settings.engine)}
    with Embedder(**model, show_progress=settings.server.enable_tqdm) as embedder:
        turned = settings.model.projection is not None
        yield LocalSubject(embedder), None if turned else embedder.card.folder


Own = tuple[Corpus, Corpus, list[dict[int, int]] | None]


def _own(job: CheckJob) -> Own | None:
    """The user's documents, queries and labels."""
    if job.data is None:
        return None
    if job.data.queries is None:
        raise ConfigError("--corpus needs --queries")
    columns = columns_of(job.data)
    corpus, queries = read_corpus(job.data.corpus, columns), read_corpus(job.data.queries, columns)
    for found in (corpus, queries):
        if not found.texts:
            raise InvalidRequest(f"{found.name} holds vectors: a check needs texts", "corpus")
        told(found)
    labels = read_labels(job.data.qrels, queries.ids, corpus.ids) if job.data.qrels else None
    return corpus, queries, labels


def _search(
    subject: Subject, corpus: Corpus, queries: Corpus, labels: list[dict[int, int]] | None
) -> tuple[list[Shown], Finding]:
    kinds = ("document", "query") if subject.takes_input_type else (None, None)
    documents_Nd = subject.embed(corpus.texts, input_type=kinds[0])
    queries_Qd = subject.embed(queries.texts, input_type=kinds[1])
    return search_own(queries_Qd, documents_Nd, queries.texts, corpus.texts, labels)


def _publish(name: str, findings: list[Finding], shown: list[Shown], job: CheckJob) -> None:
    if job.html is not None:
        job.html.write_text(as_page(name, findings, shown), encoding="utf-8")
    if job.as_json:
        click.echo(msgspec.json.encode(as_values(name, findings, shown)).decode())
    else:
        click.echo(as_text(name, findings, shown))

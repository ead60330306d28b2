"""Fit: `anydim fit`, from documents to a file for `--projection`, with a table of what it gains.

It knows the command's words and the files; how a rotation is fitted and judged is said in quality/.

Legend: N documents, Q queries, D full dimension.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

import click
import msgspec
import torch

from anydim.cli.quality_data import Data, no_result_if_stopped, read_data
from anydim.cli.quality_options import FitJob
from anydim.config import Settings
from anydim.errors import ConfigError
from anydim.models.identity import identity_of
from anydim.models.rotation import Rotation, write_rotation
from anydim.progress import progress_bar
from anydim.quality.fit import Fitted, Questions, fit
from anydim.quality.forms import chosen_dims, ladder
from anydim.version import VERSION

_HEAD: Final = f"{'dim':>6}  {'truncated':>9}  {'fitted':>7}  gain, in 95 of 100 cases"


def run_fit(settings: Settings, job: FitJob) -> None:
    """Do it, and say what it is worth.

    Raises:
        ConfigError: a setting does not fit, or the output is there already.
        InvalidRequest: a file of the user cannot be used.
        ModelError: the output cannot be written.
    """
    if settings.model.projection is not None:
        raise ConfigError("a fit starts from the model's own vectors: leave --projection out")
    if job.output.exists() and not job.overwrite:
        raise ConfigError(f"{job.output} exists; --overwrite replaces it")
    with no_result_if_stopped():
        fitted, facts = _fitted(settings, job)
    if not job.data.as_json:
        click.echo(_table(fitted))
        click.echo(f"{fitted.advice}\n{job.output} is for --projection with {facts['model']}.")
    click.echo(msgspec.json.encode({"output": str(job.output), **facts}).decode())


def _fitted(settings: Settings, job: FitJob) -> tuple[Fitted, dict[str, Any]]:
    """The fit and what is known of it, with its file written."""
    data = read_data(settings, job.data)
    card = data.card
    if card is None:
        raise ConfigError("stored vectors do not say which model made them: name it with --model")
    width, step = data.documents_ND.shape[1], settings.model.dim_step
    dims = chosen_dims(job.data.dims, width, step) if job.data.dims else [*ladder(width, step), width]
    with progress_bar("Fitting", settings.server.enable_tqdm, unit="steps") as progress:
        fitted = fit(
            torch.from_numpy(data.documents_ND),
            dims,
            questions=_questions(data),
            method=job.method,
            progress=progress,
        )
    facts = {"model": card.name, **_facts(fitted, data)}
    write_rotation(job.output, Rotation(fitted.rotation_DD, identity_of(card), facts))
    return fitted, facts


def _questions(data: Data) -> Questions | None:
    if data.queries_QD is None or data.labels is None:
        return None
    return Questions(queries_QD=torch.from_numpy(data.queries_QD), labels=data.labels)


def _facts(fitted: Fitted, data: Data) -> dict[str, Any]:
    return {
        "corpus": data.name,
        "method": fitted.method,
        "documents": fitted.documents,
        "held_back": fitted.held_back,
        "queries": fitted.queries,
        "metric": fitted.metric,
        "rows": [asdict(row) for row in fitted.rows],
        "chosen_by": dict(fitted.chosen_by),
        "worth_it": fitted.is_worth_it,
        "advice": fitted.advice,
        "anydim": VERSION,
    }


def _table(fitted: Fitted) -> str:
    lines = [f"{row.dim:>6}  {row.truncated:>9.3f}  {row.fitted:>7.3f}  {row.gain.words()}" for row in fitted.rows]
    measured = (
        f"{fitted.metric} on {fitted.held_back:,} documents held back, {fitted.queries:,} queries; "
        f"{fitted.method} on {fitted.documents:,} documents"
    )
    return "\n".join([measured, _HEAD, *lines])

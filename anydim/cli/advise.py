"""Advise: `anydim advise`, from data of the user to a recommendation, a chart and a table.

It knows the command's words and the files; what is measured is said in quality/.

Legend: N documents, Q queries, D full dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import click
import msgspec
import numpy as np
import torch
from torch import Tensor

from anydim.cli.quality_data import Data, no_result_if_stopped, read_data, read_pairs
from anydim.cli.quality_options import AdviseJob
from anydim.config import Settings
from anydim.errors import ConfigError, InvalidRequest, ModelError
from anydim.models.card import ModelCard
from anydim.models.rotation import check_rotation, read_rotation
from anydim.progress import progress_bar
from anydim.quality import evidence
from anydim.quality.advise import Advice, Measured, advise
from anydim.quality.chart import draw_page, draw_picture, size_words
from anydim.quality.evidence import Split, Turn
from anydim.quality.extra import need
from anydim.quality.forms import all_forms, chosen_dims, distinct
from anydim.quality.outcome import Task
from anydim.quality.scan import Scan
from anydim.version import VERSION

_NEEDED: Final = ("matplotlib", "plotly", "sklearn", "scipy", "pytrec_eval")


def run_advise(settings: Settings, job: AdviseJob) -> None:
    """Do it, write the chart, and say what to use.

    Raises:
        ConfigError: a setting does not fit.
        InvalidRequest: a file of the user cannot be used.
        MissingExtra: a package of the extra is missing.
    """
    for package in _NEEDED:
        need(package)
    with _put_in_place(job.output) as folder, no_result_if_stopped():
        data = _read(settings, job)
        found, parts = _advised(settings, job, data)
        line = _write(found, parts, job, data, folder)
    if not job.data.as_json:
        click.echo(_table(found, job.count))
        if job.fitted and parts.rotation_DD is None:
            rows = f"{len(parts.measured_N)} rows"
            click.echo(
                f"Fitted forms were left out: {rows} are too few to fit on; at least {evidence.LEAST} are needed."
            )
        click.echo(f"{found.words}\nChart and all rows: {job.output / 'advise.html'}, advise.png and advise.json")
    click.echo(line)


def _advised(settings: Settings, job: AdviseJob, data: Data) -> tuple[Advice, Split]:
    with_bar = settings.server.enable_tqdm
    documents_ND = torch.from_numpy(data.documents_ND)
    width = documents_ND.shape[1]
    dims = chosen_dims(job.data.dims, width, settings.model.dim_step)
    with progress_bar("Fitting", with_bar, unit="steps") as progress:
        rotation_DD = _rotation(settings.model.projection, data.card, width)
        turn = Turn(wanted=job.fitted, rotation_DD=rotation_DD, progress=progress)
        task, parts = _task(job, data, documents_ND, turn)
    forms = all_forms(dims, distinct(job.dtypes), (False,) if parts.rotation_DD is None else (False, True))
    scan = Scan(documents_ND, job.count)
    with progress_bar("Measuring", with_bar, unit="forms") as progress:
        found = advise(task, forms, width, job.keep, scan if job.time else None, progress)
    return found, parts


def _read(settings: Settings, job: AdviseJob) -> Data:
    # Rows are rotated here, so that truncated and fitted forms come from the same ones.
    plain = replace(settings, model=replace(settings.model, projection=None))
    if job.task == "pairs":
        return read_pairs(plain, job.data, job.pair_fields, job.score_field)
    return read_data(plain, job.data, () if job.task == "retrieval" else (job.label_field,))


def _rotation(file: str | None, card: ModelCard | None, width: int) -> Tensor | None:
    """The rotation behind ``--projection``, for vectors that may have been stored without their model."""
    if file is None:
        return None
    found = read_rotation(Path(file))
    if card is not None:
        check_rotation(found, file, card)
    elif len(found.rotation_DD) != width:
        raise ModelError(f"{file} is for {len(found.rotation_DD)} components, the vectors have {width}")
    return found.rotation_DD


def _task(job: AdviseJob, data: Data, documents_ND: Tensor, turn: Turn) -> tuple[Task, Split]:
    queries_QD = None if data.queries_QD is None else torch.from_numpy(data.queries_QD)
    if job.task == "pairs":
        assert queries_QD is not None, "pairs have two sides"
        scores_N = _numbers(data.fields[job.score_field], job.score_field)
        return evidence.pairs(documents_ND, queries_QD, scores_N, turn)
    if job.task == "retrieval":
        return evidence.retrieval(documents_ND, queries_QD, data.labels, turn, job.k, job.sample)
    return evidence.classes(documents_ND, data.fields[job.label_field], turn, job.task == "clustering")


def _numbers(values: Any, field: str) -> Any:
    try:
        scores_N = np.array([float(value) for value in values])
    except (TypeError, ValueError):
        raise InvalidRequest(f"{field} must be numbers", field) from None
    if not np.isfinite(scores_N).all():
        raise InvalidRequest(f"{field} must be finite numbers", field)
    return scores_N


def _write(found: Advice, parts: Split, job: AdviseJob, data: Data, folder: Path) -> str:
    """Chart, page and result into a folder; the result as one line."""
    title = f"{data.card.name if data.card else 'Stored vectors'} on {data.name}"
    result = {
        "model": data.card.name if data.card else None,
        "corpus": data.name,
        "task": job.task,
        "metric": found.metric,
        "units": found.units,
        "keep": found.keep,
        "count": job.count,
        "fitted_on": parts.fitted_on,
        "measured_on": len(parts.measured_N),
        "recommended": found.recommended.as_row(job.count),
        "sure": found.is_sure,
        "advice": found.words,
        "rows": [row.as_row(job.count) for row in found.rows],
        "anydim": VERSION,
    }
    line = msgspec.json.encode(result).decode()
    draw_picture(found, title, folder / "advise.png")
    draw_page(found, title, job.count, folder / "advise.html")
    (folder / "advise.json").write_text(line + "\n", encoding="utf-8")
    return line


@contextmanager
def _put_in_place(output: Path) -> Iterator[Path]:
    """A folder whose files go to the output when all are there, so that what stands there belongs together.

    It lies in the output, which may be a file system of its own, and which is made at once: what cannot be written is
    told before the work.
    """
    is_new = not output.exists()
    try:
        output.mkdir(parents=True, exist_ok=True)
        scratch = TemporaryDirectory(dir=output, prefix=".")
    except OSError as error:
        raise ConfigError(f"--output {output} cannot be written to: {error.strerror}") from None
    try:
        with scratch as folder:
            yield Path(folder)
            for file in Path(folder).iterdir():
                file.replace(output / file.name)
    except BaseException:
        if is_new:
            with suppress(OSError):  # something else lies there by now
                output.rmdir()
        raise


def _table(found: Advice, count: int) -> str:
    """The front, the form to use and the full one."""
    shown = [row for row in found.rows if row in found.front or row in (found.recommended, found.full)]
    size = f"{count:,} vectors"
    head = f"{'form':<26} {'bytes':>6}  {size:>18}  {found.metric:>14}  {'share of full, %':<20}  search"
    return "\n".join(
        [f"{found.units}; the smallest forms that are as good:", head, *(_line(row, found, count) for row in shown)]
    )


def _line(row: Measured, found: Advice, count: int) -> str:
    mark = "  <- use" if row is found.recommended else ""
    time = "" if row.search_ms is None else f"{row.search_ms:,.1f} ms"
    size = size_words(count * row.form.bytes)
    return (
        f"{row.form.name:<26} {row.form.bytes:>6}  {size:>18}  {row.value:>14.3f}  {row.share.words(100, 1):<20}  "
        f"{time}{mark}"
    )

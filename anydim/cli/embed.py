"""Embed: `anydim embed`, from files of texts to a file of vectors, and from batch files to their answers.

It knows the command's words and the library; what a job is, is said in offline/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from anydim.cli.job_report import Bar, drawn, tell
from anydim.config import Settings, changed
from anydim.deploy.pool import Pool, prepare
from anydim.embedder import Embedder
from anydim.errors import ConfigError, MissingExtra
from anydim.offline.batch import BatchWork
from anydim.offline.embed import EmbedJob, EmbedWork, in_words
from anydim.offline.job import Done, Job, check_output, run_job


def run_embed(settings: Settings, job: Job, pool: Pool | None = None) -> int:
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
    check_output(job)
    with_bar = settings.server.enable_tqdm
    bar = drawn("Embedding", job, with_bar)
    model = {**changed(settings.model), **changed(settings.engine)}
    if not isinstance(job, EmbedJob):
        if pool is not None:
            raise ConfigError("batch files are answered in this process: leave --ray out")
        with Embedder(**model, show_progress=with_bar) as embedder, bar as show:
            done = run_job(BatchWork(embedder, job, settings.model.served_model_name), job, show)
        return tell(done, job, "answers", "answer")
    if pool is None:
        with Embedder(**model, show_progress=with_bar) as embedder, bar as show:
            done = run_job(EmbedWork(embedder, job), job, show)
    else:
        done = _on_ray(model, job, bar, pool)
    return tell(done, job, in_words(done.dim, job.output_dtype), "vector")


def _on_ray(model: Mapping[str, Any], job: EmbedJob, bar: Bar, pool: Pool) -> Done:
    prepare(pool.address)
    try:
        from anydim.deploy.ray_data import embed_on_ray
    except ModuleNotFoundError as error:
        raise MissingExtra(f"--ray needs a package ({error.name}): pip install 'anydim[ray]'") from None
    with bar as show:
        return embed_on_ray(model, job, pool, show)

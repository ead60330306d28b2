"""Rerank: `anydim rerank`, from files of queries and documents to a file of scores.

It knows the command's words and the library; what a job is, is said in offline/.
"""

from __future__ import annotations

from anydim.cli.job_report import drawn, tell
from anydim.config import Settings, changed
from anydim.errors import ConfigError
from anydim.offline.job import check_output, run_job
from anydim.offline.rerank import RerankJob, RerankWork
from anydim.reranker import Reranker


def run_rerank(settings: Settings, job: RerankJob) -> int:
    """Do it, and say what was done.

    Returns:
        The exit code: 1 where rows have no score, else 0.

    Raises:
        AnydimError: as offline.job.run_job; or no model is named.
    """
    model = {**changed(settings.model), **changed(settings.engine)}
    if "model" not in model:
        raise ConfigError("name a reranker: --model Qwen/Qwen3-Reranker-0.6B, or a local folder")
    check_output(job)
    with_bar = settings.server.enable_tqdm
    bar = drawn("Reranking", job, with_bar)
    with Reranker(**model, show_progress=with_bar) as reranker, bar as show:
        done = run_job(RerankWork(reranker, job), job, show)
    return tell(done, job, "scores", "score")

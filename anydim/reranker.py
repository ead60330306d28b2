"""Reranker: the library's door to rerankers and cross-encoders. Texts in, scores out, with the engine in this process.

An entrance: it composes registry, intake and engine, and refuses what the server refuses.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np

from anydim.config import load_settings
from anydim.engine.feed import feed
from anydim.engine.load import load_engine
from anydim.errors import ComputeFailed, InvalidRequest
from anydim.intake.request import ScoreRequest, Truncate
from anydim.intake.scoring import ScoreIntake
from anydim.models.registry import find_model
from anydim.progress import progress_bar
from anydim.types import Float32Array, Item, Output

_CHUNK: Final = 256  # pairs tokenised at a time, so that the engine starts while the rest are being read
_BAR_FROM: Final = 1000  # pairs from which a progress bar is worth drawing


@dataclass(frozen=True, slots=True)
class Ranked:
    """One document of an answer.

    Attributes:
        index: its place among the documents of the request.
        score: how relevant it is; higher is better.
        document: its text.
    """

    index: int
    score: float
    document: str


class Reranker:
    """Scores pairs of query and document in this process.

    Use it as a context manager, or call ``close``. Safe for many threads: their pairs share batches.
    """

    def __init__(self, model: str, *, show_progress: bool = True, **settings: Any) -> None:
        """Load a reranker, cross-encoder or classifier.

        Args:
            model: hub id or local folder.
            show_progress: draw progress bars on a terminal, for loading and for long lists.
            settings: any model or engine setting by name, such as ``dtype``, ``device``, ``rerank_template`` or
                ``max_batch_tokens``; see docs/config.md.

        Raises:
            ConfigError: an unknown setting, or one that does not fit.
            ModelError: the model is not there, broken, not supported, or has no scores.
        """
        loaded = load_settings({"model": model, "task": "rerank", **settings}, {})
        self.settings = loaded.model
        self._show_progress = show_progress
        engine = loaded.engine
        if "max_queue_tokens" not in settings:  # callers wait for their own texts
            engine = replace(engine, max_queue_tokens=sys.maxsize)
        with progress_bar("Preparing the model", show_progress) as progress:
            self.card = find_model(loaded.model, progress)
        self.intake = ScoreIntake.of(self.card, loaded.model)
        self.template = loaded.model.rerank_template
        self._engine, self.started = load_engine(self.card, loaded.model, engine, show_progress)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Finish what is under way and free the model."""
        self._engine.close()

    def submit(self, items: Sequence[Item]) -> Future[list[Output]]:
        """Items that this reranker's ``intake`` made; the future gets one Output an Item, an error in place of a score
        where one pair failed. Cancelling it takes back what waits.
        """
        return self._engine.submit(items)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the model's scores; one of a reranker."""
        return self.intake.scorer.labels

    def score(
        self,
        query: str | Sequence[str],
        documents: str | Sequence[str],
        *,
        instruction: str | None = None,
        truncate: Truncate | str = Truncate.END,
        raw: bool | None = None,
        show_progress: bool | None = None,
    ) -> Any:
        """Score documents against a query.

        Args:
            query: one query for all documents, or one a document.
            documents: one text or many.
            instruction: what makes a document relevant, for models that were trained with instructions.
            truncate: what happens to pairs that are too long: ``end`` and ``start`` cut the document there, ``none``
                refuses.
            raw: True gives the model's own numbers, False puts them between 0 and 1; by default as the model's
                folder says, which is between 0 and 1 for rerankers.
            show_progress: draw a bar; by default from 1000 pairs on.

        Returns:
            float32 numpy (n,), one score a document; a float for one text; (n, labels) of a model with several labels.

        Raises:
            InvalidRequest: as the server refuses it; ``param`` names the field.
            ComputeFailed: the model gave no finite score for a pair.
        """
        single = isinstance(documents, str)
        request = ScoreRequest(
            queries=[query] if isinstance(query, str) else list(query),
            documents=[documents] if isinstance(documents, str) else list(documents),
            instruction=instruction,
            truncate=_truncate(truncate),
            squash=None if raw is None else not raw,
        )
        scores = self._run(request, show_progress)
        if len(self.labels) == 1:
            scores = scores[:, 0]
        return scores[0] if single else scores

    async def ascore(self, query: str | Sequence[str], documents: str | Sequence[str], **options: Any) -> Any:
        """``score`` without blocking the event loop; the same arguments, result and errors."""
        return await asyncio.to_thread(self.score, query, documents, **options)

    def rerank(self, query: str, documents: Sequence[str], *, top_n: int | None = None, **options: Any) -> list[Ranked]:
        """Documents by relevance, the best first; equal scores stay in order.

        Args:
            query: the query.
            documents: the documents.
            top_n: how many to return; all by default.
            options: as ``score``.

        Raises:
            InvalidRequest: as ``score``; or the model has several scores, so that there is no order.
            ComputeFailed: as ``score``.
        """
        if len(self.labels) != 1:
            raise InvalidRequest(f"{self.card.name} has {len(self.labels)} scores and gives no order; use score")
        scores = self.score(query, list(documents), **options) if documents else np.empty(0, np.float32)
        order = np.argsort(-scores, kind="stable")[:top_n]
        return [Ranked(int(place), float(scores[place]), documents[place]) for place in order]

    async def arerank(self, query: str, documents: Sequence[str], **options: Any) -> list[Ranked]:
        """``rerank`` without blocking the event loop; the same arguments, result and errors."""
        return await asyncio.to_thread(self.rerank, query, documents, **options)

    def _run(self, request: ScoreRequest, show_progress: bool | None) -> Float32Array:
        """Tokenise chunk by chunk while the engine works on the chunks before."""
        count = len(request.documents)
        show = self._show_progress and count >= _BAR_FROM if show_progress is None else show_progress
        with progress_bar("Scoring", show, unit="pairs") as progress:
            chunks = self.intake.chunks(request, _CHUNK)
            return _stack(feed(self._engine, chunks, lambda done: progress("pairs", done, count)))


def _stack(outputs: Sequence[Output]) -> Float32Array:
    for index, output in enumerate(outputs):
        if output.error is not None:
            raise ComputeFailed(f"documents[{index}]: {output.error.message}")
    return np.stack([np.asarray(output.values, np.float32) for output in outputs])


def _truncate(value: Truncate | str) -> Truncate:
    try:
        return Truncate(value)
    except ValueError:
        raise InvalidRequest(f"truncate must be one of {', '.join(Truncate)}, got {value!r}", "truncate") from None

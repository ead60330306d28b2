"""Reranker: the library's door to rerankers and cross-encoders. Texts in, scores out, with the engine in this process.

An entrance: it composes intake and engine, and refuses what the server refuses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from anydim.errors import InvalidRequest
from anydim.intake.request import ScoreRequest, Truncate, choice
from anydim.intake.scoring import ScoreIntake
from anydim.resident import CHUNK, Resident
from anydim.types import Float32Array


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


class Reranker(Resident[ScoreIntake]):
    """Scores pairs of query and document in this process.

    Use it as a context manager, or call ``close``. Safe for many threads: their pairs share batches.
    """

    _work, _unit, _field = "Scoring", "pairs", "documents"

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
        super().__init__({"model": model, "task": "rerank", **settings}, ScoreIntake.of, show_progress)
        self.template = self.settings.rerank_template

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
            truncate=choice(Truncate, truncate, "truncate"),
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
        outputs = self._outputs(self.intake.chunks(request, CHUNK), len(request.documents), show_progress)
        return np.stack([np.asarray(output.values, np.float32) for output in outputs])

"""Remote: a server's embeddings and scores, asked for through OpenAI's client, which repeats what may be repeated.

It knows the routes and their fields; it knows no framework.

Legend: D components.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from anydim.errors import MissingExtra

_BATCH: Final = 512  # texts in one request


class Remote:
    """A running server."""

    def __init__(self, base_url: str, model: str | None, api_key: str | None, timeout: float) -> None:
        """Get ready to ask; nothing is sent yet.

        Args:
            base_url: such as ``http://127.0.0.1:30000``, with or without ``/v1``.
            model: a name that the server knows; its default otherwise.
            api_key: of the server, where it asks for one.
            timeout: seconds of one request.

        Raises:
            MissingExtra: openai is not installed.
        """
        try:
            from openai import OpenAI
        except ImportError:
            raise MissingExtra("a server is asked through a package: pip install openai") from None
        place = base_url.rstrip("/").removesuffix("/v1") + "/v1"
        self._model = model
        self._client = OpenAI(base_url=place, api_key=api_key or "none", timeout=timeout)

    def embed(self, texts: Sequence[str], options: Mapping[str, Any]) -> list[list[float]]:
        """Vectors of texts, each of D numbers; ``options`` are fields of POST /v1/embeddings.

        Raises:
            openai.APIError: the server refuses or does not answer.
        """
        found: list[list[float]] = []
        for part in _parts(texts):
            answer = self._client.embeddings.create(input=part, model=self._name(), extra_body=dict(options))
            found += [row.embedding for row in answer.data]
        return found

    async def aembed(self, texts: Sequence[str], options: Mapping[str, Any]) -> list[list[float]]:
        """``embed`` in a thread, so that one client serves every event loop."""
        return await asyncio.to_thread(self.embed, texts, options)

    def score(self, query: str, documents: Sequence[str], options: Mapping[str, Any]) -> list[float]:
        """How relevant each document is; ``options`` are fields of POST /v1/rerank.

        Raises:
            openai.APIError: as ``embed``.
        """
        answer = self._client.post("/rerank", cast_to=object, body=self._pairs(query, documents, options))
        return _in_order(answer, len(documents))

    async def ascore(self, query: str, documents: Sequence[str], options: Mapping[str, Any]) -> list[float]:
        """``score`` in a thread."""
        return await asyncio.to_thread(self.score, query, documents, options)

    def _pairs(self, query: str, documents: Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
        named = {"model": self._model} if self._model else {}
        return {"query": query, "documents": list(documents), "return_documents": False, **named, **options}

    def _name(self) -> Any:
        # The client insists on a name. Null is the server's default; its type does not foresee it.
        return self._model


def _parts(texts: Sequence[str]) -> list[list[str]]:
    return [list(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]


def _in_order(answer: Any, count: int) -> list[float]:
    scores = [0.0] * count
    for result in answer["results"]:
        scores[result["index"]] = float(result["relevance_score"])
    return scores

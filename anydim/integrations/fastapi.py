"""FastAPI: POST /embed and POST /rerank for the user's own application, with the models in this process.

The models are loaded when the application starts and freed when it stops. Errors have FastAPI's own shape, a list under
`detail` that names the field; their statuses are those of our server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

from fastapi import APIRouter, FastAPI, HTTPException, Request
from pydantic import BaseModel, Field

from anydim.api.status import TABLE, Dialect
from anydim.embedder import Embedder
from anydim.errors import AnydimError
from anydim.reranker import Reranker

__all__ = ["EmbedBody", "RankedDocument", "RerankBody", "router"]


class EmbedBody(BaseModel):
    """What POST /embed takes."""

    inputs: str | list[str] = Field(description="A text, or a list of texts.", examples=[["first text", "second text"]])
    output_dim: int | list[int | None] | None = Field(
        default=None, description="Components of each vector: one number, or one an input."
    )
    input_type: Literal["query", "document"] | None = Field(default=None, description="What the texts are for.")
    prompt_name: str | None = Field(default=None, description="A key of the model's prompts.")
    instruction: str | None = Field(default=None, description="The task, for models trained with instructions.")
    truncate: Literal["end", "start", "none"] = Field(default="none", description="Where long texts are cut.")
    normalize: bool = Field(default=True, description="Whether vectors have length one.")


class RerankBody(BaseModel):
    """What POST /rerank takes."""

    query: str
    documents: list[str]
    instruction: str | None = Field(default=None, description="What makes a document relevant.")
    top_n: int | None = Field(default=None, ge=1, description="How many documents to return; all by default.")
    truncate: Literal["end", "start", "none"] = Field(default="end", description="Where long documents are cut.")
    return_documents: bool = Field(default=False, description="Whether the texts come back.")


class RankedDocument(BaseModel):
    """One document of an answer, best first."""

    index: int = Field(description="Its place in the request.")
    relevance_score: float
    document: str | None = None


def router(
    model: str | None = None,
    *,
    reranker: str | None = None,
    settings: Mapping[str, Any] | None = None,
    reranker_settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> APIRouter:
    """A router with POST /embed, and with POST /rerank where a reranker is named.

    Args:
        model: hub id or local folder; the starter model by default.
        reranker: hub id or local folder of a reranking model.
        settings: settings of the model and its engine by name, such as ``device`` and ``dtype``.
        reranker_settings: the same for the reranker.
        options: of FastAPI's APIRouter, such as ``prefix``, ``tags`` and ``dependencies``.

    Raises:
        ConfigError, ModelError: when the application starts: a setting or a model is wrong.
    """
    models = _Models()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            loading = asyncio.to_thread(Embedder, model, show_progress=False, **(settings or {}))
            models.embedder = await stack.enter_async_context(await loading)
            if reranker is not None:
                scoring = asyncio.to_thread(Reranker, reranker, show_progress=False, **(reranker_settings or {}))
                models.reranker = await stack.enter_async_context(await scoring)
            yield

    found = APIRouter(lifespan=lifespan, **options)
    found.add_api_route("/embed", models.embed, methods=["POST"], summary="Embed texts.")
    if reranker is not None:
        found.add_api_route("/rerank", models.rerank, methods=["POST"], summary="Sort documents by relevance.")
    return found


class _Models:
    """The models of one router while its application runs."""

    embedder: Embedder
    reranker: Reranker

    async def embed(self, body: EmbedBody, request: Request) -> list[list[float]]:
        """Vectors, one an input, in order."""
        options = body.model_dump(exclude={"inputs"})
        texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
        with _as_http():
            vectors = await self.embedder.aembed(texts, **options)
        return [row.tolist() for row in vectors]

    async def rerank(self, body: RerankBody, request: Request) -> list[RankedDocument]:
        """Documents, the best first."""
        with _as_http():
            ranked = await self.reranker.arerank(
                body.query, body.documents, top_n=body.top_n, instruction=body.instruction, truncate=body.truncate
            )
        return [
            RankedDocument(
                index=each.index,
                relevance_score=each.score,
                document=each.document if body.return_documents else None,
            )
            for each in ranked
        ]


@contextlib.contextmanager
def _as_http() -> Any:
    """Our errors as FastAPI's, with the status that our own server gives them."""
    try:
        yield
    except AnydimError as error:
        row = TABLE.get(error.kind, TABLE["failed"])
        place = ["body", *filter(None, [getattr(error, "param", None)])]
        detail = [{"type": error.kind, "loc": place, "msg": error.message}]
        raise HTTPException(row.of(Dialect.OPENAI), detail) from None

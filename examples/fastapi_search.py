"""The whole search in your own FastAPI application: /embed and /rerank come from anydim, /search is yours.

Run: python examples/fastapi_search.py --reranker Qwen/Qwen3-Reranker-0.6B [--model MODEL]

Then: curl http://127.0.0.1:8000/search -H 'Content-Type: application/json' -d '{"query": "put a list in order"}'

Needs pip install 'anydim[fastapi,starter]'.
"""

from __future__ import annotations

import argparse
from typing import Any

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI, Request
from pydantic import BaseModel

from anydim.integrations import fastapi as anydim_fastapi

PAGES = (
    "sorted() returns a new sorted list. list.sort() sorts a list in place and returns None.",
    "datetime.date.fromisoformat() reads a date such as 2026-11-26.",
    "Path.read_text() opens a file, reads it as text and closes it.",
    "A set holds each value once. set(values) removes duplicates from a list, but loses its order.",
    "A thread pool runs functions in several threads and collects their results.",
)


class SearchBody(BaseModel):
    """What /search takes."""

    query: str
    top_n: int = 2


def make_app(model: str | None, reranker: str) -> FastAPI:
    """An application with /embed, /rerank and /search."""
    app = FastAPI(title="My pages")
    app.include_router(anydim_fastapi.router(model, reranker=reranker))

    @app.post("/search")
    async def search(body: SearchBody, request: Request) -> list[dict[str, Any]]:
        """Few components of every page, all components of the best, a cross-encoder for the rest."""
        transport = httpx.ASGITransport(app=request.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            pages = await _embed(client, list(PAGES), "document")
            query = (await _embed(client, [body.query], "query"))[0]
            coarse = np.argsort(-_cut(pages, 64) @ _cut(query[None], 64)[0])[:4]
            refined = coarse[np.argsort(-pages[coarse] @ query)][:3]
            texts = [PAGES[place] for place in refined]
            wanted = {"query": body.query, "documents": texts, "top_n": body.top_n, "return_documents": True}
            answer = await client.post("/rerank", json=wanted)
            answer.raise_for_status()
            return answer.json()

    return app


async def _embed(client: httpx.AsyncClient, texts: list[str], input_type: str) -> np.ndarray:
    answer = await client.post("/embed", json={"inputs": texts, "input_type": input_type})
    answer.raise_for_status()
    return np.array(answer.json(), np.float32)


def _cut(vectors: np.ndarray, dim: int) -> np.ndarray:
    """A vector of dimension d is the first d components, scaled to length one."""
    part = vectors[:, :dim]
    return part / np.linalg.norm(part, axis=1, keepdims=True)


def main() -> None:
    """Serve the application."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="hub id or folder; the starter model by default")
    parser.add_argument("--reranker", required=True, help="hub id or folder of a reranking model")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    uvicorn.run(make_app(options.model, options.reranker), port=options.port)


if __name__ == "__main__":
    main()

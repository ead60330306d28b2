"""The whole search through LangChain: embeddings of two sizes, candidates refined, and the best of them reranked.

Run: python examples/langchain_search.py --reranker Qwen/Qwen3-Reranker-0.6B [--model MODEL]

Needs pip install 'anydim[langchain,retrieval,starter]'.
"""

from __future__ import annotations

import argparse
import tempfile

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

from anydim import Embedder
from anydim.integrations.langchain import AnydimEmbeddings, AnydimRerank, AnydimRetriever
from anydim.retrieval import Document as Page
from anydim.retrieval import Index

PAGES = {
    "sorting": "sorted() returns a new sorted list. list.sort() sorts a list in place and returns None.",
    "dates": "datetime.date.fromisoformat() reads a date such as 2026-11-26.",
    "files": "Path.read_text() opens a file, reads it as text and closes it.",
    "sets": "A set holds each value once. set(values) removes duplicates from a list, but loses its order.",
    "threads": "A thread pool runs functions in several threads and collects their results.",
}
QUERY = "How do I put a list in order?"


def through_a_vector_store(model: str | None, reranker: AnydimRerank) -> list[Document]:
    """LangChain's own store with our embeddings at 64 dimensions, then our reranker."""
    embeddings = AnydimEmbeddings(model=model, model_kwargs={"output_dim": 64})
    store = InMemoryVectorStore(embeddings)
    store.add_documents([Document(text, id=name) for name, text in PAGES.items()])
    candidates = store.similarity_search(QUERY, k=4)
    embeddings.close()
    return list(reranker.compress_documents(candidates, QUERY))


def through_an_index(model: str | None, reranker: AnydimRerank) -> list[Document]:
    """Our index as a retriever: 64 components, then all of them, then our reranker."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Embedder(model, show_progress=False) as embedder,
        Index(folder, embedder) as index,
    ):
        index.add(Page(name, text) for name, text in PAGES.items())
        candidates = AnydimRetriever(index=index, k=4).invoke(QUERY)
        return list(reranker.compress_documents(candidates, QUERY))


def main() -> None:
    """Search both ways and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="hub id or folder; the starter model by default")
    parser.add_argument("--reranker", required=True, help="hub id or folder of a reranking model")
    options = parser.parse_args()
    reranker = AnydimRerank(model=options.reranker, top_n=2)
    for search in (through_a_vector_store, through_an_index):
        print(search.__name__)
        for document in search(options.model, reranker):
            print(f"  {document.metadata['relevance_score']:.3f}  {document.page_content}")
    reranker.close()


if __name__ == "__main__":
    main()

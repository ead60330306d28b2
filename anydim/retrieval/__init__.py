"""Entrance: documents in a database, found in stages: few components, all components, a cross-encoder."""

from anydim.retrieval.documents import Columns, Document, Refusal, read_documents
from anydim.retrieval.index import Index, Report
from anydim.retrieval.stages import Hit, SearchResult, Stage

__all__ = ["Columns", "Document", "Hit", "Index", "Refusal", "Report", "SearchResult", "Stage", "read_documents"]

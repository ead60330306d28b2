"""Tests of documents, chunks, filters, stages and the databases behind an index."""

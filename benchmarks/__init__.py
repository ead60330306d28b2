"""Benchmarks: one script a question. They print what ran on what and end with one JSON line."""

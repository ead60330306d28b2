"""Tests of heads/: pooling, dimensions and output types against numpy and sentence-transformers."""

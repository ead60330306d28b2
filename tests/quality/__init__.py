"""Tests of the dimension tools: against scikit-learn, scipy and sentence-transformers, on rows and on real models."""

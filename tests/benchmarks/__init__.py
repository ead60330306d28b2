"""Tests of what the benchmarks compute from their measurements, and that every script runs."""

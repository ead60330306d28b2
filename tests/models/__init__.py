"""Tests of models/: folders, weights and devices."""

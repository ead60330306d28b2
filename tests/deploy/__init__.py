"""Tests of anydim/deploy, on a real Ray cluster of this machine."""

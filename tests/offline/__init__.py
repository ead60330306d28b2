"""Tests of anydim/offline."""

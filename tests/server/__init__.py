"""Tests of whole servers: `anydim serve` as its own process, real clients, real signals."""

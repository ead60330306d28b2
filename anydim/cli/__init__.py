"""Entrance: the command line."""

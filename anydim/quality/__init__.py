"""Entrance: which dimension to choose, on data of one's own, and whether vectors are right."""

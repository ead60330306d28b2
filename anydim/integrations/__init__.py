"""Entrance: classes and routers for the frameworks that people already have. Each file needs its framework alone."""

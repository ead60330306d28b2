"""Tests of the classes and routers for other frameworks."""

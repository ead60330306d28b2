"""Offline: files of texts to files of vectors, in shards, so that a job that was stopped goes on."""

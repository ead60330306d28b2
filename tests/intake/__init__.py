"""Tests of intake/: tokens, token ids, prompts and dimensions."""

"""The rules of the house, each one a test.

A rule is a plain function over source text that returns its violations as readable strings. Every rule is applied to
the real tree and shown to fail on a planted one. Knows nothing of what the package does.
"""

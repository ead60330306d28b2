"""The numerical laws: ours against transformers and sentence-transformers, and against ourselves."""

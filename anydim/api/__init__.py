"""Floor 1: HTTP. Bytes to requests, Outputs to bytes. Imports no torch."""

"""Floor 5: hidden states to what was asked for. Plain functions, each written once."""

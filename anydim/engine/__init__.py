"""Floor 3: Items to Outputs. Admit, queue, pack, run, answer. Knows no HTTP and no text."""

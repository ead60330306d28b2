"""Floor 1 through the real engine with a fake model: what a client sees."""

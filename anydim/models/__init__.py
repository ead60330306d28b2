"""Floor 4: packed forwards, and what is known of a model without running it."""

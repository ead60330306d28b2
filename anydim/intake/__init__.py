"""Floor 2: text to Items. Shared by HTTP and the library; knows no HTTP and imports no torch."""

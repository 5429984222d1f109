"""Output on the terminal: progress, and the closing summary."""

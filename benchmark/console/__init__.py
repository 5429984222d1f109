"""What the terminal shows and takes: names and patterns, progress, the closing summary."""

"""A run on disk: its folder, rows, keys and where its numbers come from."""

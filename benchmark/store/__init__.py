"""A run on disk: its folder, its rows, its schema and the provenance of its numbers."""

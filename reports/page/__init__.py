"""The page of a run: one HTML file with frames and plots beside it, which works from disk without a network."""

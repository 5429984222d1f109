"""The stages of a run, by `session`: describe it, make its videos, score them."""

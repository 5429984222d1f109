"""Metrics of movement: against the truth, against the reference, and its coherence in time."""

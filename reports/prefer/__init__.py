"""Blind preferences of people: a sheet of pairs, and what the votes say beside the metrics."""

"""Tuning of the methods on the development suite: `python -m benchmark.tune`."""

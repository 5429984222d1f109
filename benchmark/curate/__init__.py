"""Curation of the suites of puppet cases: `python -m benchmark.curate`."""

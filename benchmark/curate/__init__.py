"""How the suites of puppet cases are made: `python -m benchmark.curate`."""

"""The page of `python -m benchmark.speed`."""

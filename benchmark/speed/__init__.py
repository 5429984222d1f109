"""Speed comparisons with rivals in the same process: `python -m benchmark.speed`."""

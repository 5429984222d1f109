"""Speed beside rivals in the same process: `python -m benchmark.speed`."""

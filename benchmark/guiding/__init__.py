"""What the signals of guided methods know: `python -m benchmark.guiding`."""

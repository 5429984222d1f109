"""Test of the signals of guided methods: `python -m benchmark.guiding`."""

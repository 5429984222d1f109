"""Compute which graphics cards a large model fits: `python -m flexiact.memory`."""

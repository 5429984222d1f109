"""Ablations: runs of variants that a few lines of TOML list, and what comes out of them."""

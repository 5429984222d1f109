"""Learned weights on disk: the authors' files, ours, and a stock diffusers pipeline."""

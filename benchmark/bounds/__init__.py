"""Floors and ceilings of every metric."""

"""Difficulty curves and claims over runs of several suites."""

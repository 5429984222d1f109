"""Suites of puppet cases and suites of files."""

"""Talking to people in a terminal: command lines, progress bars, notes."""

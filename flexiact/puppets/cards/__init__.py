"""Accuracy of the shipped puppet weights on held-out worlds."""

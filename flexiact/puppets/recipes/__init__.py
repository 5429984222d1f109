"""Recipes that train the shipped puppet weights."""

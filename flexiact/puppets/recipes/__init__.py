"""How the shipped puppet weights are trained."""

"""What the shipped puppet weights are worth: figures on held-out worlds."""

"""The published results, all that they depend on, and the command that makes them."""

"""The training loop behind every recipe: seeded, resumable, in one or several processes."""

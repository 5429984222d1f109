"""The puppet world: a procedural source of action-transfer tasks with known true answers, and what is trained on it."""

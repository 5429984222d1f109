"""The puppet world: a procedural source of action-transfer tasks whose true answers are known, and what is trained on it."""

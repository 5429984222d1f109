"""The puppet world: procedural action-transfer tasks with known true answers, and the models trained on them."""

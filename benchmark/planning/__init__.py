"""The contents of a run: methods and their variants, cells and their keys, and the choice among them."""

"""Action transfer from one reference video to one target image: the task's words, the backbones, the paper's method.

The lowest package: it imports nothing of the suite. Importing it is cheap; the modules below load torch.
"""

from pathlib import Path

PUPPET_WEIGHTS = Path(__file__).parent / "puppets" / "weights"
"""Folder of the shipped weights."""

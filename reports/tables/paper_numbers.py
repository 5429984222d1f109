"""Numbers of the paper, kept apart because they come from other data, another tracker and another backbone."""

PROVENANCE = "arXiv 2505.03730, Table 1"
SETTING = "CogVideoX-5B-I2V, 250 pairs of real videos and images, CLIP ViT-B/32, CoTracker"

COLUMNS = ("text similarity", "motion fidelity", "temporal consistency", "appearance consistency")

TABLE_1: dict[str, tuple[float, float, float, float]] = {
    "MD-I2V": (0.2446, 0.3496, 0.9276, 0.8963),
    "Base (learnable embedding, no RefAdapter, no FAE)": (0.2541, 0.3562, 0.9283, 0.8951),
    "without FAE": (0.2675, 0.3614, 0.9255, 0.9134),
    "without RefAdapter": (0.2640, 0.3856, 0.9217, 0.9021),
    "FlexiAct": (0.2732, 0.4103, 0.9342, 0.9162),
}

PREFERENCE_OVER_BASE: dict[str, tuple[float, float]] = {
    "MD-I2V": (47.2, 53.1),
    "without FAE": (59.7, 76.4),
    "without RefAdapter": (68.6, 52.2),
    "FlexiAct": (79.5, 78.3),
}
"""Percentages of votes that preferred the method to Base, for motion and for appearance."""

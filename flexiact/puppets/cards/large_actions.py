"""Distances between the named large actions, and the share of each that the limbs carry.

`python -m flexiact.puppets.cards.large_actions > flexiact/puppets/cards/large_actions.csv` writes the published table.
"""

import csv
import io

import torch

from flexiact.puppets.world.actions import (
    DEV_ACTIONS,
    TEST_ACTIONS,
    PuppetAction,
    action_distance,
    curves,
    is_large,
    restricted,
)
from flexiact.puppets.world.clip import NUM_FRAMES, render_values
from flexiact.puppets.world.rigs import CHANNELS, LIMBS, RIGS
from flexiact.puppets.world.scene import random_scene

LIMB_CHANNELS = tuple(channel for channel in CHANNELS if channel.startswith(LIMBS))

SCENES_A_BODY = 5
"""Number of scenes per body. A few more change no share by .03; single scenes differ by .1."""

_SEED = 0
_BODIES = tuple(rig for rig in RIGS if set(LIMB_CHANNELS) <= set(RIGS[rig].channels))
"""Bodies with all limbs; other bodies cannot show an action's whole limb movement."""


def large_actions() -> dict[str, PuppetAction]:
    """All named large actions, those for tests first."""
    return {name: action for name, action in (TEST_ACTIONS | DEV_ACTIONS).items() if is_large(action)}


def pixel_energy(action: PuppetAction) -> float:
    """Squared difference from the neutral picture (sRGB in 0..1), summed over frames and pixels, mean over scenes."""
    generator = torch.Generator().manual_seed(_SEED)
    scenes = [random_scene(generator, "test", rig) for _ in range(SCENES_A_BODY) for rig in _BODIES]
    values = torch.cat([torch.zeros(1, len(CHANNELS)), curves(action, NUM_FRAMES)])
    frames = [torch.from_numpy(c.video.frames) / 255 for c in render_values(scenes, values.expand(len(scenes), -1, -1))]
    return sum(float((each[1:] - each[0]).square().sum()) for each in frames) / len(frames)


def limb_share(action: PuppetAction) -> float:
    """Share of the limbs, 0..1: energy of their movement alone / (this + energy of all other movement alone)."""
    limbs = restricted(action, LIMB_CHANNELS)
    others = tuple(motion for motion in action if motion not in limbs)
    if not limbs or not others:
        return float(bool(limbs))
    alone, rest = pixel_energy(limbs), pixel_energy(others)
    return alone / (alone + rest)


def distance_table() -> dict[str, dict[str, float]]:
    """`action_distance` of every pair of named large actions."""
    actions = large_actions()
    return {a: {b: action_distance(actions[a], actions[b]) for b in actions} for a in actions}


def as_csv() -> str:
    """CSV text with one line per action: name, pool, limb share, distance to every other action."""
    actions, distances, text = large_actions(), distance_table(), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["action", "pool", "limb_share", *actions])
    for name, action in actions.items():
        pool = "test" if name in TEST_ACTIONS else "development"
        writer.writerow([name, pool, f"{limb_share(action):.2f}", *(f"{d:.2f}" for d in distances[name].values())])
    return text.getvalue()


if __name__ == "__main__":
    print(as_csv(), end="")

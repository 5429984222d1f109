"""Poses of target images: the neutral one, and moments of random large actions.

No moment belongs to a named action, so an image shows neither the requested action nor the wrong one.
"""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from benchmark.curate.rules import Chosen, Target, body_sizes, generator_of, keypoints, rounded
from flexiact.puppets.world.actions import DEV_ACTIONS, TEST_ACTIONS, curves, random_large_action
from flexiact.puppets.world.clip import NEUTRAL_POSE, NUM_FRAMES
from flexiact.puppets.world.rigs import CHANNELS, RIGS
from flexiact.puppets.world.scene import Scene

ACTIONS_DRAWN = 300
"""Number of random large actions. All their frames are moments, so every action has some near its start."""

MIN_FROM_NAMED = 0.15
"""Least Euclidean distance, over a body's channels, of a moment from every frame of every named action. The neutral
pose is such a frame, since many actions begin with it. 1 is a full natural movement of one channel."""

_SEED = 21


@cache
def moments() -> Tensor:
    """Channel values [N, 21] from which poses are taken, rounded to the precision of the files."""
    generator = generator_of(_SEED, "moments")
    drawn = [curves(random_large_action(generator), NUM_FRAMES) for _ in range(ACTIONS_DRAWN)]
    return (torch.cat(drawn) * 1e3).round() / 1e3


@cache
def of_body(rig: str) -> Tensor:
    """Copy of `moments` [N, 21] with 0 for channels that a body lacks."""
    has = torch.tensor([channel in RIGS[rig].channels for channel in CHANNELS])
    return torch.where(has, moments(), 0)


@cache
def usable(rig: str) -> Tensor:
    """Mask [N] of the moments that stay away from all named actions on a body."""
    return from_named(of_body(rig), rig) >= MIN_FROM_NAMED


def from_named(poses: Tensor, rig: str) -> Tensor:
    """Distances [N] of poses [N, 21] from the nearest frame of a named action, over the channels that a body has."""
    has = torch.tensor([channel in RIGS[rig].channels for channel in CHANNELS])
    named = torch.cat([curves(action, NUM_FRAMES) for action in (TEST_ACTIONS | DEV_ACTIONS).values()])
    return torch.cdist(poses[:, has], named[:, has]).min(dim=1).values


def posed(scene: Scene, index: int) -> Target:
    """Target that shows a scene's figure in one of the moments."""
    return Target(scene, rounded(of_body(scene.rig)[index]))


def any_poses(scene: Scene, count: int, generator: torch.Generator) -> list[Target]:
    """Targets that show the scene's figure in the neutral pose and in `count` moments."""
    able = usable(scene.rig).nonzero().flatten()
    chosen = able[torch.randperm(len(able), generator=generator)[:count]].tolist()
    return [Target(scene, NEUTRAL_POSE), *(posed(scene, index) for index in chosen)]


def in_band(chosen: Chosen, scene: Scene, band: tuple[float, float]) -> Tensor:
    """Mask [N] of the moments within a range of distances from the first pose of the canonical answer on a scene."""
    able = usable(scene.rig).nonzero().flatten()
    values = torch.cat([torch.tensor([chosen.starting(scene).pose]), of_body(scene.rig)[able]])
    start, images = np.split(keypoints([scene], values[None])[0], [1])
    distances = body_sizes(scene, images, start[0])
    found = torch.zeros(len(moments()), dtype=torch.bool)
    found[able[torch.from_numpy((distances >= band[0]) & (distances <= band[1]))]] = True
    return found

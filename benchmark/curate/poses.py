"""Poses of target images: the neutral one, and moments of random large actions.

No moment is that of a named action, so an image shows neither what is to be done nor what would be wrong.
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
"""Random large actions, all of whose frames are moments: enough that every action has some near its own start."""

MIN_FROM_NAMED = 0.15
"""Euclidean distance over a body's channels that a moment keeps from every frame of every named action, and so from the
neutral pose, which many begin with. 1 is a full natural movement of one channel."""

_SEED = 21


@cache
def moments() -> Tensor:
    """Channel values [N, 21] that poses are taken from, rounded as files hold them."""
    generator = generator_of(_SEED, "moments")
    drawn = [curves(random_large_action(generator), NUM_FRAMES) for _ in range(ACTIONS_DRAWN)]
    return (torch.cat(drawn) * 1e3).round() / 1e3


@cache
def of_body(rig: str) -> Tensor:
    """`moments` as far as a body has the channels, [N, 21]."""
    has = torch.tensor([channel in RIGS[rig].channels for channel in CHANNELS])
    return torch.where(has, moments(), 0)


@cache
def usable(rig: str) -> Tensor:
    """Which moments [N] stay away from all named actions on a body."""
    return from_named(of_body(rig), rig) >= MIN_FROM_NAMED


def from_named(poses: Tensor, rig: str) -> Tensor:
    """Distances [N] of poses [N, 21] to the nearest frame of a named action, over the channels that a body has."""
    has = torch.tensor([channel in RIGS[rig].channels for channel in CHANNELS])
    named = torch.cat([curves(action, NUM_FRAMES) for action in (TEST_ACTIONS | DEV_ACTIONS).values()])
    return torch.cdist(poses[:, has], named[:, has]).min(dim=1).values


def posed(scene: Scene, index: int) -> Target:
    """A scene's figure in one of the moments."""
    return Target(scene, rounded(of_body(scene.rig)[index]))


def any_poses(scene: Scene, count: int, generator: torch.Generator) -> list[Target]:
    """The scene's figure in the neutral pose and in `count` moments."""
    able = usable(scene.rig).nonzero().flatten()
    chosen = able[torch.randperm(len(able), generator=generator)[:count]].tolist()
    return [Target(scene, NEUTRAL_POSE), *(posed(scene, index) for index in chosen)]


def in_band(chosen: Chosen, scene: Scene, band: tuple[float, float]) -> Tensor:
    """Which moments [N] lie within a range of distances from where the canonical answer begins on a scene."""
    able = usable(scene.rig).nonzero().flatten()
    values = torch.cat([torch.tensor([chosen.starting(scene).pose]), of_body(scene.rig)[able]])
    start, images = np.split(keypoints([scene], values[None])[0], [1])
    distances = body_sizes(scene, images, start[0])
    found = torch.zeros(len(moments()), dtype=torch.bool)
    found[able[torch.from_numpy((distances >= band[0]) & (distances <= band[1]))]] = True
    return found

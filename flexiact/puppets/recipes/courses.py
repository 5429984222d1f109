"""Movements of the figures in the backbone's training clips."""

import torch
from torch import Tensor

from flexiact.puppets.world.actions import (
    MIN_DISTANCE_TO_TEST,
    PuppetAction,
    blended,
    curves,
    nearest_named,
    random_large_action,
)
from flexiact.puppets.world.clip import NUM_FRAMES
from flexiact.puppets.world.rigs import CHANNELS, RIGS

# Half of the clips begin in their action. The others move into it from another pose, as an image-to-video model must if
# the image shows another moment. Half of these start from the neutral pose, half from a moment of another action.
IN_ACTION_SHARE, FROM_NEUTRAL_SHARE = 0.5, 0.25
BLEND_LENGTHS = (0.25, 0.5)  # shares of the clip's duration


def random_pose(generator: torch.Generator, rig: str) -> Tensor:
    """Channel values [21] of a random moment of a random large action."""
    values = curves(random_large_action(generator, RIGS[rig].channels), NUM_FRAMES)
    return values[int(torch.randint(NUM_FRAMES, (), generator=generator))]


def random_course(generator: torch.Generator, rig: str) -> tuple[PuppetAction, Tensor]:
    """A random large action, and the channel values [T, 21] of a clip of it.

    Both the action and the whole course, with its way into the action, keep their distance from every named action.
    """
    while True:
        action = random_large_action(generator, RIGS[rig].channels)
        values, draw = curves(action, NUM_FRAMES), float(torch.rand((), generator=generator))
        if draw < IN_ACTION_SHARE:
            return action, values
        neutral = draw < IN_ACTION_SHARE + FROM_NEUTRAL_SHARE
        pose = torch.zeros(len(CHANNELS)) if neutral else random_pose(generator, rig)
        length = BLEND_LENGTHS[int(torch.randint(len(BLEND_LENGTHS), (), generator=generator))]
        values = blended(pose, values, length)
        if nearest_named(values) >= MIN_DISTANCE_TO_TEST:
            return action, values

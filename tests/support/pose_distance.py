"""The distance of two poses by its definition, a target at a time; `benchmark.curate.rules` measures many at once."""

from collections.abc import Sequence

import torch

from flexiact.puppets.world.actions import PuppetAction, curves
from flexiact.puppets.world.clip import NEUTRAL_POSE, NUM_FRAMES, SIZE, projections
from flexiact.puppets.world.rigs import RIGS
from flexiact.puppets.world.scene import Scene


def pose_distance(target: Scene, answer: PuppetAction, target_pose: Sequence[float] = NEUTRAL_POSE) -> float:
    """Distance of the target image's pose from the pose in which the answer begins.

    Args:
        target: Scene of the image.
        answer: Canonical answer on this target.
        target_pose: 21 channel values of the image's figure.

    Returns:
        RMS distance of all keypoints that the body has, in body sizes (one body unit on the picture).
    """
    values = torch.stack([torch.tensor(target_pose), curves(answer, NUM_FRAMES)[0]])
    image, first = projections([target], values[None]).keypoints()[:, list(RIGS[target.rig].keypoints)]
    rms = float((image - first).square().sum(-1).mean().sqrt())
    return round(rms / (target.camera.scale * SIZE), 4)

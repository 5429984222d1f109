"""Candidates from which the retrieval metric chooses: the target performing each of the suite's named actions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from flexiact.media.digests import json_digest as digest
from flexiact.puppets.world.actions import DEV_ACTIONS, TEST_ACTIONS, PuppetAction, curves, restricted
from flexiact.puppets.world.clip import SIZE, projections
from flexiact.puppets.world.rigs import RIGS
from flexiact.puppets.world.scene import Scene
from metrics.features import Candidates
from metrics.motion.centred_agreement import true_movement
from metrics.motion.motion_agreement import agreements

ALIKE_AGREEMENT = 0.95
"""A candidate that agrees this well with a right answer counts as right: nobody could tell the two apart here."""

SEEN_MOTION_SHARE = 2.0 / SIZE
"""A candidate must move some keypoint at least this share of the frame's side from the middle of its path."""


def pool_of(name: str) -> Mapping[str, PuppetAction]:
    """Set of named actions that an action belongs to: the test actions or the development actions."""
    return TEST_ACTIONS if name in TEST_ACTIONS else DEV_ACTIONS


def candidate_settings() -> dict[str, Any]:
    """Settings of retrieval's candidates, the same for all cases, for run.json; named actions as a digest."""
    named = {name: [[m.channel, m.shape, m.amplitude] for m in a] for name, a in (TEST_ACTIONS | DEV_ACTIONS).items()}
    return {
        "named_actions": digest(named),
        "alike_agreement": ALIKE_AGREEMENT,
        "seen_motion_share": SEEN_MOTION_SHARE,
    }


def candidates(
    target: Scene, name: str, right: Sequence[PuppetAction], num_frames: int, first: int, side_px: int
) -> Candidates:
    """Render the right answers, and every other named action as far as the target's body can perform it.

    Other actions are left out that have no visible motion from the `first` compared frame on.

    Returns:
        Keypoints in pixels of the square picture, and for each candidate whether it counts as right.
    """
    channels = RIGS[target.rig].channels
    others = [restricted(action, channels) for other, action in pool_of(name).items() if other != name]
    values = torch.stack([curves(action, num_frames) for action in (*right, *others)])
    points = projections([target] * len(values), values, side_px).keypoints()
    keypoints = points.view(len(values), num_frames, -1, 2).numpy().copy()
    lacking = np.ones(keypoints.shape[2], dtype=bool)
    lacking[list(RIGS[target.rig].keypoints)] = False
    keypoints[:, :, lacking] = np.nan
    movement = true_movement(keypoints[:, first:, ~lacking])
    moves = np.linalg.norm(movement, axis=-1).max((1, 2)) >= SEEN_MOTION_SHARE * side_px
    is_right = np.arange(len(values)) < len(right)
    alike = np.max([agreements(movement[i], movement) for i in range(len(right))], axis=0) >= ALIKE_AGREEMENT
    kept = moves | is_right
    return Candidates(keypoints[kept], (alike | is_right)[kept])

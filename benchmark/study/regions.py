"""Find the video tokens at which the right answer moves, from its masks of parts and its keypoints."""

import numpy as np
import torch
from torch import Tensor

from benchmark.suites.case import Format
from benchmark.suites.truth import counted_keypoints
from metrics.features import Truth

COVERED_SHARE = 0.25
"""Smallest share of a token's pixels, over the frames that it stands for, that make it one of a region."""


def regions(truth: Truth, grid: tuple[int, int, int], form: Format) -> dict[str, Tensor]:
    """Masks of the video tokens, bool [frames * height * width] of `grid`, of the canonical right answer.

    A part moves if one of its two ends is, at some judged frame, as far from its place in the target image as a counted
    keypoint has to be. A token is `inside` if moving parts are `COVERED_SHARE` of its pixels, and `outside` if not. Of
    those outside, a token is `still` if parts that do not move are as many of its pixels. The tokens of the first frame
    are in no region: it is the target image, in which nothing moves.
    """
    moved = counted_keypoints(
        truth.keypoints[:1, truth.first_scored_frame :], truth.target_keypoints, min(form.height, form.width)
    )
    moves = moved[truth.bones].any(axis=1)
    shown = truth.parts >= 0
    moving = shown & moves[truth.parts]
    inside = covered(moving, grid) >= COVERED_SHARE
    still = (covered(shown & ~moving, grid) >= COVERED_SHARE) & ~inside
    later = torch.ones(grid, dtype=torch.bool)
    later[0] = False
    return {"inside": (inside & later).flatten(), "outside": (~inside & later).flatten(), "still": still.flatten()}


def covered(mask: np.ndarray, grid: tuple[int, int, int]) -> Tensor:
    """Share of the pixels of each video token that a mask [T, H, W] holds, [frames, height, width]; 0 in the first.

    The first token frame stands for the first frame, the others share the rest equally.
    """
    frames, height, width = grid
    later = torch.from_numpy(mask[1:]).float().unflatten(0, (frames - 1, -1)).mean(dim=1)
    shares = later.unflatten(2, (width, -1)).unflatten(1, (height, -1)).mean(dim=(2, 4))
    return torch.cat([torch.zeros(1, height, width), shares])

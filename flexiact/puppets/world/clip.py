"""Clips of the puppet world together with their truth: keypoints and part masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from flexiact.puppets.world.actions import PuppetAction, curves
from flexiact.puppets.world.render import Projection, draw, project
from flexiact.puppets.world.rigs import BONES, CHANNELS, KEYPOINTS, RIGS, pose
from flexiact.puppets.world.scene import Scene
from flexiact.task import Video

NUM_FRAMES, SIZE, FPS = 9, 64, 8.0
NEUTRAL_POSE: tuple[float, ...] = (0.0,) * len(CHANNELS)


@dataclass(frozen=True, eq=False)
class Clip:
    """A rendered clip and its truth.

    Attributes:
        video: T frames of SIZE x SIZE.
        keypoints: float32 [T, 13, 2], (x, y) in pixels, pixel centres at half-integers.
        keypoint_exists: bool [13], False where the body lacks the part.
        parts: int8 [T, H, W], index into `BONES` of the visible bone, -1 on the background.
        bone_radii_px: float32 [12], mean radius of every bone in pixels.
    """

    video: Video
    keypoints: np.ndarray
    keypoint_exists: np.ndarray
    parts: np.ndarray
    bone_radii_px: np.ndarray


def bone_visibility(scenes: Sequence[Scene]) -> torch.Tensor:
    """Mask of the bones that each scene's body has: bool [B, 12]."""
    return torch.tensor([[i in RIGS[s.rig].bones for i in range(len(BONES))] for s in scenes])


def projections(scenes: Sequence[Scene], values: torch.Tensor, size: int = SIZE) -> Projection:
    """Pose and project scenes with channel values [B, T, 21] (the stance is added here)."""
    stance = torch.tensor([s.stance for s in scenes])[:, None]
    proportions = torch.tensor([s.proportions for s in scenes])
    bones, radii = pose([s.rig for s in scenes], proportions, values + stance)
    return project(bones, radii, [s.camera for s in scenes], size)


def render_values(scenes: Sequence[Scene], values: torch.Tensor, size: int = SIZE) -> list[Clip]:
    """Render scenes with channel values [B, T, 21]; `render_clips` is built on it."""
    projection = projections(scenes, values, size)
    batch, frames = values.shape[:2]
    images, parts = draw(projection, scenes, bone_visibility(scenes), size)
    videos, owners = images.view(batch, frames, size, size, 3).numpy(), parts.view(batch, frames, size, size).numpy()
    points = projection.keypoints().view(batch, frames, len(KEYPOINTS), 2).numpy()
    radii = projection.radii.view(batch, frames, len(BONES), 2).mean((1, 3)).numpy()
    exists = [np.isin(np.arange(len(KEYPOINTS)), RIGS[s.rig].keypoints) for s in scenes]
    return [Clip(Video(videos[i], FPS), points[i], exists[i], owners[i], radii[i]) for i in range(batch)]


def render_clips(
    scenes: Sequence[Scene], actions: Sequence[PuppetAction], num_frames: int = NUM_FRAMES, size: int = SIZE
) -> list[Clip]:
    """Render each scene performing its action over the whole clip."""
    values = torch.stack([curves(a, num_frames) for a in actions])
    return render_values(scenes, values, size)


def render_clip(scene: Scene, action: PuppetAction, num_frames: int = NUM_FRAMES, size: int = SIZE) -> Clip:
    """Render one scene performing one action."""
    return render_clips([scene], [action], num_frames, size)[0]


def target_clip(scene: Scene, size: int = SIZE, target_pose: Sequence[float] = NEUTRAL_POSE) -> Clip:
    """The scene's target image as a clip of one frame: the figure in a pose (21 channel values) without an action."""
    return render_values([scene], torch.tensor(target_pose)[None, None], size)[0]

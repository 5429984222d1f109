"""The true answers of a transfer: the target, in its own layout and viewpoint, doing the reference's action.

Also the distances of reference and target on the four axes of heterogeneity.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flexiact.puppets.world.actions import Motion, PuppetAction, blended, curves, restricted
from flexiact.puppets.world.clip import NUM_FRAMES, projections
from flexiact.puppets.world.rigs import BONES, CHANNELS, RIGS, pose
from flexiact.puppets.world.scene import Camera, Scene

# A channel counts when it alone moves some keypoint of the reference this far in the reference's own view.
VISIBLE_MOTION_PX = 2.0
# Another action is as correct as the canonical one if the reference would look the same: a mean keypoint difference
# below this share of the mean keypoint movement.
AMBIGUITY_SHARE = 0.2
# A right answer may begin in the action, or begin in the target image's pose and move into the action during this share
# of the clip.
BLEND_SHARES = (0.0, 0.25, 0.5)


@dataclass(frozen=True)
class Answers:
    """Acceptable actions of the target, the canonical one first, and the share of the action's channels left out."""

    actions: tuple[PuppetAction, ...]
    left_out_share: float


def _keypoints(scene: Scene, actions: Sequence[PuppetAction]) -> Tensor:
    """Keypoints [len(actions), NUM_FRAMES, K, 2] in pixels of the parts that the body has."""
    values = torch.stack([curves(action, NUM_FRAMES) for action in actions])
    points = projections([scene] * len(actions), values).keypoints()
    return points.unflatten(0, values.shape[:2])[:, :, list(RIGS[scene.rig].keypoints)]


def _mirrored(action: PuppetAction) -> PuppetAction:
    """The action with left and right exchanged."""
    swap = {"left": "right", "right": "left"}
    odd = ("trunk_yaw", "trunk_roll", "head_yaw", "tail_yaw")
    return tuple(
        Motion(
            "_".join(swap.get(word, word) for word in m.channel.split("_")),
            m.shape,
            -m.amplitude if m.channel in odd else m.amplitude,
        )
        for m in action
    )


def _depth_flipped(action: PuppetAction) -> PuppetAction:
    """The action with forward and backward exchanged, which a view from the front cannot tell apart."""
    return tuple(
        Motion(m.channel, m.shape, -m.amplitude if m.channel.endswith(("swing", "pitch", "shift")) else m.amplitude)
        for m in action
    )


def visible_channels(scene: Scene, action: PuppetAction) -> tuple[str, ...]:
    """Channels of the action that exist on the scene's body and visibly move in its view."""
    moving = dict.fromkeys(m.channel for m in action)
    names = [name for name in moving if name in RIGS[scene.rig].channels]
    still, *alone = _keypoints(scene, [(), *(restricted(action, (name,)) for name in names)])
    moved = [float((points - still).norm(dim=-1).max()) for points in alone]
    return tuple(name for name, px in zip(names, moved, strict=True) if px >= VISIBLE_MOTION_PX)


def answers(reference: Scene, target: Scene, action: PuppetAction) -> Answers:
    """Correct results of transferring `action`, as seen on `reference`, to `target`."""
    seen = visible_channels(reference, action)
    shared = [c for c in seen if c in RIGS[target.rig].channels]
    total = len({m.channel for m in action})
    others = _mirrored(action), _depth_flipped(action)
    still, shown, *of_others = _keypoints(reference, [(), action, *others])
    movement = float((shown - still).norm(dim=-1).mean())
    actions = [restricted(action, shared)]
    for other, points in zip(others, of_others, strict=True):
        alike = float((points - shown).norm(dim=-1).mean()) <= AMBIGUITY_SHARE * movement
        candidate = restricted(other, RIGS[target.rig].channels)
        new = all(not torch.equal(curves(candidate, NUM_FRAMES), curves(a, NUM_FRAMES)) for a in actions)
        if alike and new:
            actions.append(candidate)
    return Answers(tuple(actions), 1 - len(shared) / total if total else 0.0)


def arrived(pose: Tensor, values: Tensor) -> Tensor:
    """Channel values [T, 21] that go from a pose to an action's first frame over the longest blend, and stay there."""
    return blended(pose, values[:1].expand_as(values), max(BLEND_SHARES))


def relative(pose: Tensor, values: Tensor) -> Tensor:
    """Channel values [T, 21] of a pose with the action's changes since its first frame added."""
    return pose + (values - values[:1])


def layout_distance(a: Camera, b: Camera) -> float:
    """Distance of the figures' centres as a share of the frame's side, plus |log| of their ratio of scales."""
    return round(math.hypot(a.x - b.x, a.y - b.y) + abs(math.log(a.scale / b.scale)), 4)


def viewpoint_deg(a: Camera, b: Camera) -> float:
    """Angle between two viewing directions in degrees."""
    cosine = sum(x * y for x, y in zip(_view_direction(a), _view_direction(b), strict=True))
    return round(math.degrees(math.acos(max(-1.0, min(1.0, cosine)))), 3)


def _view_direction(camera: Camera) -> tuple[float, float, float]:
    yaw, pitch = math.radians(camera.yaw_deg), math.radians(camera.pitch_deg)
    return math.cos(yaw) * math.cos(pitch), math.sin(pitch), math.sin(yaw) * math.cos(pitch)


def skeleton_distances(reference: Scene, targets: Sequence[Scene]) -> list[float]:
    """Share of channels that only one body has, plus the mean |log| length ratio of the bones that both have."""
    scenes = [reference, *targets]
    values = torch.zeros(len(scenes), 1, len(CHANNELS))
    bones, _ = pose([scene.rig for scene in scenes], torch.tensor([scene.proportions for scene in scenes]), values)
    ours, *others = (bones[:, 0, :, 1] - bones[:, 0, :, 0]).norm(dim=-1)
    rig, distances = RIGS[reference.rig], []
    for target, theirs in zip(targets, others, strict=True):
        other = RIGS[target.rig]
        common = [i for i in range(len(BONES)) if i in rig.bones and i in other.bones]
        first, second = set(rig.channels), set(other.channels)
        ratio = float((ours[common] / theirs[common]).log().abs().mean())
        distances.append(round(len(first ^ second) / len(first | second) + ratio, 4))
    return distances


def axes(reference: Scene, target: Scene) -> dict[str, float]:
    """Distances of two scenes on three axes; how far apart two poses are is the fourth.

    Returns:
        "layout", "viewpoint" and "skeleton", by `layout_distance`, `viewpoint_deg` and `skeleton_distances`.
    """
    return {
        "layout": layout_distance(reference.camera, target.camera),
        "viewpoint": viewpoint_deg(reference.camera, target.camera),
        "skeleton": skeleton_distances(reference, [target])[0],
    }

"""The true answers of a transfer: the target, in its own layout and viewpoint, doing the reference's action.

Also how far apart reference and target are on the four axes of heterogeneity.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flexiact.puppets.actions import Motion, PuppetAction, curves, restricted
from flexiact.puppets.rigs import BONES, CHANNELS, RIGS, pose
from flexiact.puppets.scene import Camera, Scene
from flexiact.puppets.world import NEUTRAL_POSE, NUM_FRAMES, SIZE, projections

# A channel counts when it alone moves some keypoint of the reference this far in the reference's own view.
VISIBLE_MOTION_PX = 2.0
# Another action is as right as the canonical one when the reference would look the same: mean keypoint difference
# below this share of the mean keypoint movement.
AMBIGUITY_SHARE = 0.2
# A right answer may begin in the action at once, or hold the target image's pose and move into the action during this
# share of the clip.
BLEND_SHARES = (0.0, 0.25, 0.5)


@dataclass(frozen=True)
class Answers:
    """Acceptable actions of the target, the canonical one first, and the share of the action's channels left out."""

    actions: tuple[PuppetAction, ...]
    left_out_share: float


def _keypoints(scene: Scene, action: PuppetAction) -> Tensor:
    """Keypoints [T, K, 2] in pixels of the parts that the body has."""
    points = projections([scene], curves(action, NUM_FRAMES)[None]).keypoints()
    return points[:, list(RIGS[scene.rig].keypoints)]


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
    """Channels of the action that exist on the scene's body and can be seen to move in its view."""
    still = _keypoints(scene, ())
    channels = []
    for name in dict.fromkeys(m.channel for m in action):
        alone = _keypoints(scene, restricted(action, (name,)))
        if name in RIGS[scene.rig].channels and float((alone - still).norm(dim=-1).max()) >= VISIBLE_MOTION_PX:
            channels.append(name)
    return tuple(channels)


def answers(reference: Scene, target: Scene, action: PuppetAction) -> Answers:
    """What a perfect transfer of `action`, as seen on `reference`, may look like on `target`."""
    seen = visible_channels(reference, action)
    shared = [c for c in seen if c in RIGS[target.rig].channels]
    total = len({m.channel for m in action})
    shown, still = _keypoints(reference, action), _keypoints(reference, ())
    movement = float((shown - still).norm(dim=-1).mean())
    actions = [restricted(action, shared)]
    for other in (_mirrored(action), _depth_flipped(action)):
        alike = float((_keypoints(reference, other) - shown).norm(dim=-1).mean()) <= AMBIGUITY_SHARE * movement
        candidate = restricted(other, RIGS[target.rig].channels)
        new = all(not torch.equal(curves(candidate, NUM_FRAMES), curves(a, NUM_FRAMES)) for a in actions)
        if alike and new:
            actions.append(candidate)
    return Answers(tuple(actions), 1 - len(shared) / total if total else 0.0)


def blended(pose: Tensor, values: Tensor, share: float) -> Tensor:
    """Channel values [T, 21] that go from a pose into an action.

    They are (1 - w) * pose + w * action, where w rises as a smoothstep from 0 at the first frame to 1.

    Args:
        pose: [21], where the target image's figure is.
        values: [T, 21], the action.
        share: of the clip, after which w is 1; 0 gives the action itself.
    """
    done = (torch.linspace(0, 1, len(values)) / share).clamp(max=1) if share else torch.ones(len(values))
    weight = (done * done * (3 - 2 * done))[:, None]
    return (1 - weight) * pose + weight * values


def arrived(pose: Tensor, values: Tensor) -> Tensor:
    """Channel values [T, 21] that go from a pose to an action's first frame by the longest blend, and stay there."""
    return blended(pose, values[:1].expand_as(values), max(BLEND_SHARES))


def relative(pose: Tensor, values: Tensor) -> Tensor:
    """Channel values [T, 21] of a pose with the action's changes since its first frame added."""
    return pose + (values - values[:1])


def _view_direction(camera: Camera) -> Tensor:
    yaw, pitch = (torch.deg2rad(torch.tensor(a, dtype=torch.float64)) for a in (camera.yaw_deg, camera.pitch_deg))
    return torch.stack([yaw.cos() * pitch.cos(), pitch.sin(), yaw.sin() * pitch.cos()])


def _bone_lengths(scene: Scene) -> Tensor:
    """Lengths [12] in body units."""
    bones, _ = pose([scene.rig], torch.tensor([scene.proportions]), torch.zeros(1, 1, len(CHANNELS)))
    return (bones[0, 0, :, 1] - bones[0, 0, :, 0]).norm(dim=-1)


def axes(reference: Scene, target: Scene) -> dict[str, float]:
    """How far two scenes are apart; `pose_distance` is the fourth axis.

    Returns:
        layout: distance of the figures' centres as a share of the frame's side, plus |log| of their ratio of scales;
        viewpoint: angle between the two viewing directions in degrees;
        skeleton: share of channels that only one body has (of those that either has), plus the mean |log| ratio of the
            lengths of the bones that both have.
    """
    a, b = reference.camera, target.camera
    shift = float(torch.tensor([a.x - b.x, a.y - b.y], dtype=torch.float64).norm())
    layout = shift + abs(float(torch.tensor(a.scale / b.scale, dtype=torch.float64).log()))
    cosine = float((_view_direction(a) * _view_direction(b)).sum().clamp(-1, 1))
    first, second = set(RIGS[reference.rig].channels), set(RIGS[target.rig].channels)
    common = [i for i in range(len(BONES)) if i in RIGS[reference.rig].bones and i in RIGS[target.rig].bones]
    ratio = (_bone_lengths(reference)[common] / _bone_lengths(target)[common]).log().abs().mean()
    return {
        "layout": round(layout, 4),
        "viewpoint": round(float(torch.rad2deg(torch.tensor(cosine, dtype=torch.float64).acos())), 3),
        "skeleton": round(len(first ^ second) / len(first | second) + float(ratio), 4),
    }


def pose_distance(target: Scene, answer: PuppetAction, target_pose: Sequence[float] = NEUTRAL_POSE) -> float:
    """How far the target image's pose is from where the answer begins.

    Args:
        target: what the image shows.
        answer: the canonical one on this target.
        target_pose: 21 channel values of the image's figure.

    Returns:
        RMS distance of all keypoints that the body has, in body sizes (one body unit on the picture).
    """
    values = torch.stack([torch.tensor(target_pose), curves(answer, NUM_FRAMES)[0]])
    image, first = projections([target], values[None]).keypoints()[:, list(RIGS[target.rig].keypoints)]
    rms = float((image - first).square().sum(-1).mean().sqrt())
    return round(rms / (target.camera.scale * SIZE), 4)

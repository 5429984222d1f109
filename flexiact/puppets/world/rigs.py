"""Skeletons of the puppet world and their forward kinematics.

Every rig fills the same twelve bone slots (absent ones are hidden), so that one *semantic channel* ("left fore limb
swings forward") means the same thing on an arm, a wing, a fin or a foreleg, and one batched function poses them all.

Body frame: x forward, y up, z to the figure's right; lengths in body units (the neutral figure spans 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LIMBS = ("fore_left", "fore_right", "hind_left", "hind_right")
CHANNELS: tuple[str, ...] = (
    "trunk_pitch", "trunk_yaw", "trunk_roll", "hop", "shift",
    *(f"{limb}_{motion}" for limb in LIMBS for motion in ("swing", "spread", "flex")),
    "head_pitch", "head_yaw", "tail_yaw", "tail_pitch",
)  # fmt: skip
BONES: tuple[str, ...] = (
    "trunk", "head", *(f"{limb}_{part}" for limb in LIMBS for part in ("upper", "lower")), "tail_base", "tail_end",
)  # fmt: skip
KEYPOINTS: tuple[str, ...] = (
    "nose", "chest", "pelvis", *(f"{limb}_{part}" for limb in LIMBS for part in ("mid", "tip")), "tail_mid", "tail_tip",
)  # fmt: skip
BONE_ENDS: dict[str, tuple[str, str]] = {
    "trunk": ("pelvis", "chest"), "head": ("chest", "nose"),
    **{f"{limb}_upper": ("chest" if limb.startswith("fore") else "pelvis", f"{limb}_mid") for limb in LIMBS},
    **{f"{limb}_lower": (f"{limb}_mid", f"{limb}_tip") for limb in LIMBS},
    "tail_base": ("pelvis", "tail_mid"), "tail_end": ("tail_mid", "tail_tip"),
}  # fmt: skip
"""The keypoints that a bone joins, the nearer to the pelvis first."""

# (bone, end) of every keypoint; end 1 is the far end.
KEYPOINT_BONES: tuple[tuple[int, int], ...] = (
    (1, 1), (0, 1), (0, 0), *((b, 1) for b in range(2, 10)), (10, 1), (11, 1),
)  # fmt: skip


@dataclass(frozen=True)
class Rig:
    """Proportions and rest pose of one kind of body; lengths in arbitrary units, angles in degrees.

    Elevation is measured in the sagittal plane: 0 forward, 90 up, -90 down, 180 backward.
    """

    name: str
    noun: str
    trunk: tuple[float, float, float]  # length, radius, elevation
    head: tuple[float, float, float, float]  # length, radius, elevation, neck gap
    fore: tuple[float, float, float, float, float, float]  # upper, lower, radius, elevation, rest spread, half width
    hind: tuple[float, float, float, float, float, float] | None
    tail: tuple[float, float, float, float] | None  # base, end, radius, elevation
    fore_bend: float  # sign of the elbow: +1 bends forward
    hover: float  # height of the pelvis if there are no hind limbs
    missing: tuple[str, ...]  # channels that this body cannot perform

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels that exist on this body, in the order of `CHANNELS`."""
        return tuple(c for c in CHANNELS if c not in self.missing)

    @property
    def keypoints(self) -> tuple[int, ...]:
        """Indices into `KEYPOINTS` of the points that this body has."""
        gone = [] if self.hind else [n for n in KEYPOINTS if n.startswith("hind")]
        gone += [] if self.tail else [n for n in KEYPOINTS if n.startswith("tail")]
        return tuple(i for i, n in enumerate(KEYPOINTS) if n not in gone)

    @property
    def bones(self) -> tuple[int, ...]:
        """Indices into `BONES` of the bones that this body has."""
        gone = [] if self.hind else [n for n in BONES if n.startswith("hind")]
        gone += [] if self.tail else [n for n in BONES if n.startswith("tail")]
        return tuple(i for i, n in enumerate(BONES) if n not in gone)


_TAIL = ("tail_yaw", "tail_pitch")
_HIND = tuple(f"{limb}_{m}" for limb in LIMBS[2:] for m in ("swing", "spread", "flex"))

RIGS: dict[str, Rig] = {
    "biped": Rig("biped", "person", (.34, .100, 90), (.11, .105, 55, .09), (.20, .19, .078, -86, 16, .125),
                 (.23, .23, .086, -88, 5, .080), None, 1, 0, _TAIL),
    "quadruped": Rig("quadruped", "dog", (.50, .115, 0), (.17, .090, 30, .10), (.20, .19, .082, -88, 3, .095),
                     (.20, .19, .086, -92, 3, .095), (.16, .15, .060, 145), -1, 0, ()),
    "bird": Rig("bird", "bird", (.32, .125, 40), (.13, .090, 35, .09), (.23, .24, .080, -125, 28, .10),
                (.14, .14, .066, -88, 6, .070), (.13, .09, .070, 200), -1, 0, ()),
    "fish": Rig("fish", "fish", (.36, .130, 0), (.13, .110, 0, .03), (.18, .15, .078, -135, 40, .10),
                None, (.17, .15, .068, 180), -1, .35, (*_HIND, "head_pitch", "head_yaw")),
    "saurian": Rig("saurian", "dragon", (.36, .105, 35), (.18, .085, 15, .12), (.16, .15, .072, -75, 10, .09),
                   (.21, .22, .082, -85, 5, .085), (.24, .24, .062, 195), 1, 0, ()),
}  # fmt: skip
HELD_OUT_RIG = "saurian"
TRAINING_RIGS: tuple[str, ...] = tuple(name for name in RIGS if name != HELD_OUT_RIG)

# Degrees (body units for hop and shift) that a channel value of 1 stands for.
_GAIN = {"trunk_pitch": 38.0, "trunk_yaw": 45.0, "trunk_roll": 26.0, "swing": 62.0, "spread": 66.0, "flex": 85.0,
         "head_pitch": 42.0, "head_yaw": 55.0, "tail_yaw": 55.0, "tail_pitch": 45.0}  # fmt: skip
_TRAVEL = 0.20
NUM_PROPORTIONS = 9  # multipliers: trunk, head, fore, hind and tail length; trunk, head, limb and tail radius


_Turn = tuple[Tensor, Tensor]
"""Cosine and sine [...] of an angle."""


def _rotate(v: Tensor, axis: int, by: _Turn) -> Tensor:
    """Rotate vectors [..., 3] about a body axis (0 x, 1 y, 2 z) by angles [...], right-handed."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    out = list(v.unbind(-1))
    cos, sin = by
    out[i], out[j] = v[..., i] * cos - v[..., j] * sin, v[..., i] * sin + v[..., j] * cos
    return torch.stack(out, -1)


def _radians(degrees: Tensor | float) -> Tensor:
    return torch.as_tensor(degrees, dtype=torch.float32) * (torch.pi / 180)


def _turned(degrees: Tensor) -> _Turn:
    angle = _radians(degrees)
    return angle.cos(), angle.sin()


def _direction(elevation_deg: Tensor) -> Tensor:
    cos, sin = _turned(elevation_deg)
    return torch.stack([cos, sin, torch.zeros_like(cos)], -1)


def _table(rigs: Sequence[str], field: str, width: int) -> Tensor:
    """One row per figure of a rig field, zeros where the part is absent: [B, 1, width], to broadcast over time."""
    rows = [getattr(RIGS[r], field) or (0.0,) * width for r in rigs]
    return torch.tensor(rows, dtype=torch.float32).reshape(len(rigs), 1, width)


def _posed(rigs: Sequence[str], proportions: Tensor, values: Tensor) -> Tensor:
    """Forward kinematics before normalisation: bone ends [B, T, 12, 2, 3]."""
    v = dict(zip(CHANNELS, values.unbind(-1), strict=True))
    p = proportions[:, None]
    trunk, head, tail = _table(rigs, "trunk", 3), _table(rigs, "head", 4), _table(rigs, "tail", 4)
    legs = _table(rigs, "hind", 6)
    hover = torch.tensor([RIGS[r].hover for r in rigs])[:, None]
    fore_bend = torch.tensor([RIGS[r].fore_bend for r in rigs])[:, None]

    def gained(channel: str, factor: float = 1.0) -> _Turn:
        return _turned(factor * _GAIN[channel] * v[channel])

    roll, pitch, yaw = gained("trunk_roll"), gained("trunk_pitch", -1.0), gained("trunk_yaw")

    def turn(vec: Tensor) -> Tensor:  # the trunk's own rotation: roll, then pitch, then yaw, about the pelvis
        return _rotate(_rotate(_rotate(vec, 0, roll), 2, pitch), 1, yaw)

    def wide(vec: Tensor) -> Tensor:
        return vec.expand(*values.shape[:2], 3)

    height = (legs[..., 0] + legs[..., 1]) * p[..., 3] + hover + _TRAVEL * v["hop"]
    pelvis = torch.stack([_TRAVEL * v["shift"], height, torch.zeros_like(height)], -1)
    axis = turn(wide(_direction(trunk[..., 2])))
    chest = pelvis + axis * (trunk[..., 0] * p[..., 0])[..., None]
    gaze = wide(_direction(head[..., 2]))
    gaze = turn(_rotate(_rotate(gaze, 2, gained("head_pitch", -1.0)), 1, gained("head_yaw")))
    neck = chest + axis * head[..., 3:4]
    bones = [(pelvis, chest), (neck, neck + gaze * (head[..., 0] * p[..., 1])[..., None])]
    for limb in LIMBS:
        fore = limb.startswith("fore")
        spec, base, length = (_table(rigs, "fore", 6), chest, p[..., 2]) if fore else (legs, pelvis, p[..., 3])
        side, bend = (-1.0 if limb.endswith("left") else 1.0), (fore_bend if fore else -1.0)
        # A limb spreads away from the midline: about +x for the right side, about -x for the left.
        angle = -side * _radians(_GAIN["spread"] * v[f"{limb}_spread"] + spec[..., 4])
        spread = angle.cos(), angle.sin()
        root = torch.zeros_like(pelvis)
        root[..., 2] = side * spec[..., 5]
        swing = spec[..., 3] + _GAIN["swing"] * v[f"{limb}_swing"]
        upper = _rotate(_direction(swing), 0, spread)
        lower = _rotate(_direction(swing + bend * _GAIN["flex"] * v[f"{limb}_flex"]), 0, spread)
        if fore:
            upper, lower = turn(upper), turn(lower)
        joint = base + turn(root)
        elbow = joint + upper * (spec[..., 0] * length)[..., None]
        bones += [(joint, elbow), (elbow, elbow + lower * (spec[..., 1] * length)[..., None])]
    previous = pelvis
    for part, factor in ((0, 1.0), (1, 1.7)):
        rod = wide(_direction(tail[..., 3]))
        rod = turn(_rotate(_rotate(rod, 2, gained("tail_pitch", -factor)), 1, gained("tail_yaw", factor)))
        end = previous + rod * (tail[..., part] * p[..., 4])[..., None]
        bones.append((previous, end))
        previous = end
    return torch.stack([torch.stack(pair, -2) for pair in bones], -3)


def bone_radii(rigs: Sequence[str], proportions: Tensor) -> Tensor:
    """Radii of the bone ends before normalisation: [B, 12, 2]; zero for absent bones."""
    trunk, head = _table(rigs, "trunk", 3)[:, 0], _table(rigs, "head", 4)[:, 0]
    fore, hind, tail = (_table(rigs, f, w)[:, 0] for f, w in (("fore", 6), ("hind", 6), ("tail", 4)))
    p = proportions
    trunk_r, head_r = trunk[:, 1] * p[:, 5], head[:, 1] * p[:, 6]
    fore_r, hind_r, tail_r = fore[:, 2] * p[:, 7], hind[:, 2] * p[:, 7], tail[:, 2] * p[:, 8]
    ends = [(trunk_r, trunk_r), (head_r, head_r * 0.7)]
    for radius in (fore_r, fore_r, hind_r, hind_r):
        ends += [(radius, radius * 0.9), (radius * 0.9, radius * 0.75)]
    ends += [(tail_r, tail_r * 0.85), (tail_r * 0.85, tail_r * 0.6)]
    return torch.stack([torch.stack(pair, -1) for pair in ends], 1)


def pose(rigs: Sequence[str], proportions: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Pose a batch of figures of any rigs.

    Args:
        rigs: B rig names.
        proportions: [B, 9] multipliers, 1 is the rig's own proportion.
        values: [B, T, 21] channel values in the order of `CHANNELS`; channels missing on a rig are ignored.

    Returns:
        Bone ends [B, T, 12, 2, 3] and radii [B, 12, 2] in body units: the neutral figure's largest extent is 1 and its
        centre is the origin, so that a camera's scale and offset mean the same for every body.
    """
    have = torch.tensor([[c in RIGS[r].channels for c in CHANNELS] for r in rigs], dtype=values.dtype)
    with_neutral = torch.cat([torch.zeros_like(values[:, :1]), values * have[:, None]], 1)
    neutral, bones = _posed(rigs, proportions, with_neutral).split([1, values.shape[1]], 1)
    radii = bone_radii(rigs, proportions)
    # Hidden bones lie inside the body (length zero), so they never widen the box.
    low = (neutral - radii[:, None, ..., None]).amin((1, 2, 3))
    high = (neutral + radii[:, None, ..., None]).amax((1, 2, 3))
    size = (high - low).amax(-1)
    bones = (bones - ((low + high) / 2)[:, None, None, None]) / size[:, None, None, None, None]
    return bones, radii / size[:, None, None]

"""Rules that every curated case keeps: how much of its action is visible, where it is, and how its texts are written.

Many targets are measured at a time, since most of the drawn ones are unsuitable.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch

from benchmark.suites.puppets import AXES, PuppetCase, tercile
from benchmark.suites.truth import COUNTED_MOTION_SHARE, first_scored_frame, first_settled_frame, specification_digests
from flexiact.puppets.world.actions import (
    DEV_ACTIONS,
    TEST_ACTIONS,
    PuppetAction,
    blended,
    curves,
    is_large,
    restricted,
)
from flexiact.puppets.world.answers import BLEND_SHARES, Answers, answers, axes, visible_channels
from flexiact.puppets.world.captions import caption
from flexiact.puppets.world.clip import NEUTRAL_POSE, NUM_FRAMES, SIZE, projections
from flexiact.puppets.world.rigs import KEYPOINTS, RIGS, TRAINING_RIGS
from flexiact.puppets.world.scene import Scene, scene_to_dict

MAX_LEFT_OUT_SHARE = 0.34
"""At least two thirds of the action's channels are visible on the reference and exist on the target."""

MARGIN_PX = 1.0
"""Least distance of every keypoint from the frame's edge: in the reference, the target image and every right answer."""

MIN_MOVEMENT_PX = 3.0
"""Least RMS displacement of the judged keypoints from the target image, over the judged frames of the canonical answer.
It is half again as far as a keypoint must move to be judged at all."""

MIN_CENTRED_PX = 0.8
"""Least RMS displacement of the same keypoints from their own mean over the settled frames. Below it the centred
metrics would measure an estimator's noise."""

POOLS: dict[str, dict[str, PuppetAction]] = {"test": TEST_ACTIONS, "dev": DEV_ACTIONS}
"""Named actions by the split of the scenes that perform them."""

_LICENCE = "Apache-2.0"
_SOURCE = "rendered by flexiact.puppets"

_apart = cache(axes)


@cache
def _curves(action: PuppetAction) -> torch.Tensor:
    return curves(action, NUM_FRAMES)


@cache
def _right(reference: Scene, rig: str, action: PuppetAction) -> Answers:
    """Right answers for any target of a body; `answers` depends on nothing else of the target."""
    return answers(reference, replace(reference, rig=rig), action)


@dataclass(frozen=True)
class Chosen:
    """Reference of a case: the name of the action, its pool, and the scene that performs it."""

    name: str
    pool: str
    scene: Scene

    @property
    def action(self) -> PuppetAction:
        """Action of the reference."""
        return POOLS[self.pool][self.name]

    def right(self, target: Scene) -> Answers:
        """Right answers on a target."""
        return _right(self.scene, target.rig, self.action)

    def starting(self, target: Scene) -> "Target":
        """Target in the first pose of its canonical answer."""
        start = _curves(self.right(target).actions[0])[0]
        return Target(target, rounded(start))


@dataclass(frozen=True)
class Target:
    """Content of a target image: a scene, and 21 channel values of its figure."""

    scene: Scene
    pose: tuple[float, ...] = NEUTRAL_POSE


@dataclass(frozen=True, eq=False)
class Candidate:
    """A suitable target, with its distance from its reference."""

    target: Target
    axes: Mapping[str, float]
    left_out_share: float

    @property
    def scene(self) -> Scene:
        """Scene of the target."""
        return self.target.scene


def rounded(pose: torch.Tensor) -> tuple[float, ...]:
    """Channel values at the precision of the files, without minus zeros, which would give equal poses two digests."""
    return tuple(round(value, 4) + 0.0 for value in pose.tolist())


def generator_of(*words: object) -> torch.Generator:
    """Generator seeded by words, so that no part of a suite depends on the number of draws for another part."""
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:7], "big"))


def large_actions(pool: str) -> dict[str, PuppetAction]:
    """Actions of a pool whose movements are of the kind that the puppet backbone was trained on.

    A comparison of methods needs a backbone that is able to draw what the methods request.
    """
    return {name: action for name, action in POOLS[pool].items() if is_large(action)}


def fitting_rigs(action: PuppetAction, split: str) -> list[str]:
    """Rigs of a split whose bodies have enough of an action's channels."""
    channels = {motion.channel for motion in action}
    lacking = {rig: len(channels - set(RIGS[rig].channels)) / len(channels) for rig in RIGS}
    return [rig for rig in (RIGS if split == "test" else TRAINING_RIGS) if lacking[rig] <= MAX_LEFT_OUT_SHARE]


def shows_all(scenes: Sequence[Scene], action: PuppetAction) -> Scene | None:
    """First scene that shows, inside the frame, all that its body can do of an action."""
    values = curves(action, NUM_FRAMES).expand(len(scenes), -1, -1)
    for scene, points in zip(scenes, keypoints(scenes, values), strict=True):
        able = {m.channel for m in action} & set(RIGS[scene.rig].channels)
        if _inside(points) and set(visible_channels(scene, action)) == able:
            return scene
    return None


def would_do(chosen: Chosen, targets: Sequence[Target]) -> list[Candidate]:
    """Candidates among the targets that can show the reference's action well enough, in the order of the targets."""
    able = [t for t in targets if chosen.right(t.scene).left_out_share <= MAX_LEFT_OUT_SHARE]
    plainly = _fitting(chosen, able, BLEND_SHARES[:1])  # one blend first, since most targets fail here
    return _fitting(chosen, [candidate.target for candidate in plainly], BLEND_SHARES)


def _fitting(chosen: Chosen, able: Sequence[Target], shares: Sequence[float]) -> list[Candidate]:
    """Targets whose image and right answers, with these blends, stay inside the frame and move enough."""
    rows = [(number, values) for number, t in enumerate(able) for values in right_values(chosen, t, shares)]
    if not rows:
        return []
    images = keypoints([t.scene for t in able], torch.tensor([t.pose for t in able])[:, None])[:, 0]
    points = keypoints([able[n].scene for n, _ in rows], torch.stack([values for _, values in rows]))
    owners = np.array([n for n, _ in rows])
    found = []
    for number, target in enumerate(able):
        mine, image = points[owners == number], images[number]
        if _inside(mine) and _inside(image) and _moves(mine[0], image):
            distances = {
                **_apart(chosen.scene, target.scene),
                "pose": float(body_sizes(target.scene, image, mine[0, 0])),
            }
            left_out = round(chosen.right(target.scene).left_out_share, 4)
            found.append(Candidate(target, {axis: distances[axis] for axis in AXES}, left_out))
    return found


def right_values(chosen: Chosen, target: Target, shares: Sequence[float]) -> list[torch.Tensor]:
    """Channel values [T, 21] of every right answer by every blend, the canonical one first."""
    pose = torch.tensor(target.pose)
    actions = [_curves(action) for action in chosen.right(target.scene).actions]
    return [blended(pose, values, share) for values in actions for share in shares]


def keypoints(scenes: Sequence[Scene], values: torch.Tensor) -> np.ndarray:
    """Positions [B, T, K, 2] in px of scenes with channel values [B, T, 21], NaN where a body lacks the part."""
    points = projections(scenes, values).keypoints().view(*values.shape[:2], -1, 2).numpy().copy()
    for row, scene in zip(points, scenes, strict=True):
        row[:, _lacking(scene.rig)] = np.nan
    return points


@cache
def _lacking(rig: str) -> list[int]:
    """Indices of the keypoints that a body lacks."""
    return sorted(set(range(len(KEYPOINTS))) - set(RIGS[rig].keypoints))


def body_sizes(scene: Scene, images: np.ndarray, start: np.ndarray) -> np.ndarray:
    """RMS distances [...] of keypoints [..., K, 2] from [K, 2], over those that the body has, in body sizes."""
    rms = np.sqrt(np.nanmean(np.square(images - start).sum(-1), axis=-1))
    return np.round(rms.astype(np.float64) / (scene.camera.scale * SIZE), 4)


def _inside(points: np.ndarray) -> bool:
    return bool((np.isnan(points) | ((points >= MARGIN_PX) & (points <= SIZE - MARGIN_PX))).all())


def movement(points: np.ndarray, image: np.ndarray) -> tuple[float, float, int]:
    """Displacement of the keypoints [T, K, 2] that noticeably leave those of an image [K, 2].

    Returns:
        RMS displacement in px over the judged frames; RMS displacement in px from their own mean over the settled
        frames; number of these keypoints.
    """
    existing = ~np.isnan(image[:, 0])
    points, image = points[:, existing], image[existing]
    moved = np.linalg.norm(points - image, axis=-1)[first_scored_frame(len(points)) :]
    counted = moved.max(axis=0) >= COUNTED_MOTION_SHARE * SIZE
    if not counted.any():
        return 0.0, 0.0, 0
    settled = points[first_settled_frame(len(points)) :, counted]
    centred = np.square(settled - settled.mean(axis=0)).sum(-1).mean()
    return float(np.sqrt(np.square(moved[:, counted]).mean())), float(np.sqrt(centred)), int(counted.sum())


def _moves(points: np.ndarray, image: np.ndarray) -> bool:
    moved, centred, counted = movement(points, image)
    return counted >= 2 and moved >= MIN_MOVEMENT_PX and centred >= MIN_CENTRED_PX


def wrong_action(chosen: Chosen, target: Target) -> str:
    """Name of another action whose amplitude on this target is closest to that of the right answer.

    Candidates move at least as far as a case must. An action that shares a channel with a right answer is partly right,
    so candidates that share the fewest channels are preferred.
    """
    right, channels = chosen.right(target.scene).actions, RIGS[target.scene.rig].channels
    used = {motion.channel for action in right for motion in action}
    others = {n: restricted(a, channels) for n, a in POOLS[chosen.pool].items() if n != chosen.name}
    values = torch.stack([_curves(action) for action in (right[0], *others.values())])
    points = keypoints([target.scene] * len(values), values)
    image = keypoints([target.scene], torch.tensor(target.pose)[None, None])[0, 0]
    own, *amounts = [movement(each, image)[0] for each in points]
    return min(
        (len(used & {motion.channel for motion in shown}), abs(float(np.log(moved / own))), other)
        for (other, shown), moved in zip(others.items(), amounts, strict=True)
        if shown and moved >= MIN_MOVEMENT_PX
    )[2]


def make_case(
    suite: str, chosen: Chosen, number: int, found: Candidate, edges: Mapping[str, tuple[float, float]]
) -> PuppetCase:
    """Case with all that its file says; `number` tells targets of one rig and reference apart."""
    source, target = chosen.scene, found.scene
    reference_id = f"{chosen.name}-{source.rig}"
    pose = () if found.target.pose == NEUTRAL_POSE else found.target.pose
    return PuppetCase(
        case_id=f"{reference_id}-to-{target.rig}-{number}",
        suite=suite,
        action=chosen.name,
        wrong_action=wrong_action(chosen, found.target),
        reference_id=reference_id,
        target_id=f"{chosen.name}-{target.rig}-{number}",
        caption=caption(source, chosen.action, "subject"),
        prompt=caption(target, chosen.action, "subject"),
        axes=found.axes,
        terciles={axis: tercile(found.axes[axis], edges[axis]) for axis in AXES},
        left_out_share=found.left_out_share,
        licence=_LICENCE,
        source=_SOURCE,
        digests=specification_digests(source, target, chosen.action, found.target.pose),
        reference=scene_to_dict(source),
        target=scene_to_dict(target),
        target_pose=pose,
    )

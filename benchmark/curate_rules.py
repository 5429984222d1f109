"""What every curated case keeps to, whatever its suite: how much of its action is seen, where, and how it is told."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmark.cases import AXES, Case, tercile
from benchmark.truth import COUNTED_MOTION_SHARE, first_scored_frame, specification_digests
from flexiact.puppets.actions import (
    DEV_ACTIONS,
    TEST_ACTIONS,
    PuppetAction,
    action_distance,
    curves,
    is_large,
    restricted,
)
from flexiact.puppets.captions import caption
from flexiact.puppets.rigs import RIGS
from flexiact.puppets.scene import Scene, random_scene, scene_to_dict
from flexiact.puppets.transfer import answers, axes, pose_distance, visible_channels
from flexiact.puppets.world import NUM_FRAMES, SIZE, projections

MAX_LEFT_OUT_SHARE = 0.34
"""At least two thirds of the action's channels are seen on the reference and exist on the target."""

MARGIN_PX = 1.0
"""Every keypoint of reference and answer stays this far inside the frame."""

MIN_MOVEMENT_PX = 3.0
"""Root mean square displacement of the judged keypoints over the judged frames, in the canonical answer."""

POOLS: dict[str, dict[str, PuppetAction]] = {"test": TEST_ACTIONS, "dev": DEV_ACTIONS}
_LICENCE = "Apache-2.0"
_SOURCE = "rendered by flexiact.puppets"


@dataclass(frozen=True, eq=False)
class Candidate:
    """A target that would do, and how far it is from its reference."""

    scene: Scene
    axes: Mapping[str, float]
    left_out_share: float
    movement_px: float


def generator_of(*words: object) -> torch.Generator:
    """A generator seeded by words, so that one part of a suite does not depend on how many draws another part took."""
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(repr(words).encode()).digest()[:7], "big"))


def large_actions(pool: str) -> dict[str, PuppetAction]:
    """A pool's actions of the movements that the puppet backbone was trained on.

    A comparison of methods needs a backbone that can draw at all what they ask of it.
    """
    return {name: action for name, action in POOLS[pool].items() if is_large(action)}


def fitting_rigs(action: PuppetAction, split: str) -> list[str]:
    """Rigs that have enough of an action's channels and occur in a split."""
    channels = {motion.channel for motion in action}
    drawn = {random_scene(generator_of("rigs", split, i), split).rig for i in range(60)}
    return [
        r
        for r in RIGS
        if r in drawn and 1 - len(channels & set(RIGS[r].channels)) / len(channels) <= MAX_LEFT_OUT_SHARE
    ]


def distant_actions(pool: Mapping[str, PuppetAction], split: str) -> list[str]:
    """Actions that most rigs can do, each as far as can be from all before it."""
    rigs = {name: len(fitting_rigs(action, split)) for name, action in pool.items()}
    names = [name for name in pool if rigs[name] >= max(rigs.values()) - 1]
    chosen = [names[0]]
    while len(chosen) < len(names):
        rest = [name for name in names if name not in chosen]
        chosen.append(max(rest, key=lambda name: min(action_distance(pool[name], pool[other]) for other in chosen)))
    return chosen


def shows_all(scene: Scene, action: PuppetAction) -> bool:
    """Whether a reference shows all that its body can do of an action, inside the frame."""
    seen = set(visible_channels(scene, action))
    return seen == {m.channel for m in action} & set(RIGS[scene.rig].channels) and inside(scene, action)


def candidate(reference: Scene, target: Scene, action: PuppetAction) -> Candidate | None:
    """The target as a candidate, None where the action cannot be shown well enough on it."""
    right = answers(reference, target, action)
    if right.left_out_share > MAX_LEFT_OUT_SHARE or not all(inside(target, answer) for answer in right.actions):
        return None
    moved, counted = movement(target, right.actions[0])
    if counted < 2 or moved < MIN_MOVEMENT_PX:
        return None
    distances = {**axes(reference, target), "pose": pose_distance(target, right.actions[0])}
    return Candidate(target, distances, round(right.left_out_share, 4), moved)


def inside(scene: Scene, action: PuppetAction) -> bool:
    """Whether all keypoints stay in the frame, in the clip and in the target image."""
    points = np.concatenate([_keypoints(scene, action), _keypoints(scene, (), 1)])
    return bool((points >= MARGIN_PX).all() and (points <= SIZE - MARGIN_PX).all())


def movement(scene: Scene, action: PuppetAction) -> tuple[float, int]:
    """RMS displacement in px of the keypoints that the action moves noticeably, and how many these are."""
    moved = np.linalg.norm(_keypoints(scene, action) - _keypoints(scene, (), 1), axis=-1)
    moved = moved[first_scored_frame(NUM_FRAMES) :]
    counted = moved[:, moved.max(axis=0) >= COUNTED_MOTION_SHARE * SIZE]
    return (float(np.sqrt((counted**2).mean())), counted.shape[1]) if counted.size else (0.0, 0)


def _keypoints(scene: Scene, action: PuppetAction, num_frames: int = NUM_FRAMES) -> np.ndarray:
    """Keypoints [T, K, 2] in px of the parts that the body has; nothing is drawn."""
    points = projections([scene], curves(action, num_frames)[None]).keypoints()
    return points[:, list(RIGS[scene.rig].keypoints)].numpy()


def wrong_action(target: Scene, answer: Sequence[PuppetAction], name: str, pool: Mapping[str, PuppetAction]) -> str:
    """The name of another action whose amplitude on this target is closest to that of the right answer.

    Candidates move at least as far as a case must and, where there are any, use no channel of any right answer: an
    action that shares a channel is partly right.
    """
    own = movement(target, answer[0])[0]
    used = {motion.channel for action in answer for motion in action}
    found = []
    for other, action in pool.items():
        shown = restricted(action, RIGS[target.rig].channels)
        moved = movement(target, shown)[0] if shown and other != name else 0.0
        if moved >= MIN_MOVEMENT_PX:
            shared = len(used & {motion.channel for motion in shown})
            found.append((shared, abs(float(np.log(moved / own))), other))
    return min(found)[2]


@dataclass(frozen=True)
class Chosen:
    """A case's reference: the action's name, the pool it is from, and the scene that performs it."""

    name: str
    pool: str
    scene: Scene


def make_case(
    suite: str, chosen: Chosen, number: int, target: Candidate, edges: Mapping[str, tuple[float, float]]
) -> Case:
    """All that a case's file says; `number` tells targets of one rig and reference apart."""
    source, pool = chosen.scene, POOLS[chosen.pool]
    action, reference_id = pool[chosen.name], f"{chosen.name}-{source.rig}"
    right = answers(source, target.scene, action).actions
    return Case(
        case_id=f"{reference_id}-to-{target.scene.rig}-{number}",
        suite=suite,
        action=chosen.name,
        wrong_action=wrong_action(target.scene, right, chosen.name, pool),
        reference_id=reference_id,
        target_id=f"{chosen.name}-{target.scene.rig}-{number}",
        caption=caption(source, action, "subject"),
        prompt=caption(target.scene, action, "subject"),
        axes=target.axes,
        terciles={axis: tercile(target.axes[axis], edges[axis]) for axis in AXES},
        left_out_share=target.left_out_share,
        licence=_LICENCE,
        source=_SOURCE,
        digests=specification_digests(source, target.scene, action),
        reference=scene_to_dict(source),
        target=scene_to_dict(target.scene),
    )

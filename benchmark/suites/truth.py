"""Render a puppet case at a backbone's size: its reference, its target image, and the right answer.

Only bounds and scores see the answer. A method gets `Staged.reference`, `Staged.target` and the two texts. Methods that
declare it also get the true keypoints of these two pictures (`ToldKeypoints`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from benchmark.suites.candidates import candidate_settings, candidates, pool_of
from benchmark.suites.case import CaseError, Format, Shown
from flexiact.media.digests import json_digest as digest
from flexiact.puppets.world.actions import PuppetAction, blended, curves
from flexiact.puppets.world.answers import BLEND_SHARES, VISIBLE_MOTION_PX, answers
from flexiact.puppets.world.captions import caption
from flexiact.puppets.world.clip import NEUTRAL_POSE, SIZE, Clip, projections, render_clip, render_values, target_clip
from flexiact.puppets.world.render import RENDERER_VERSION
from flexiact.puppets.world.rigs import BONE_ENDS, BONES, CHANNELS, KEYPOINTS
from flexiact.puppets.world.scene import Camera, Scene, scene_from_dict, scene_to_dict
from flexiact.task import Video
from flexiact.terminal.cli import one_line
from metrics.features import Candidates, Source, Truth

TRUTH_VERSION = 2
"""Version of the truth; raise it when the same case begins to be judged by another truth."""

COUNTED_MOTION_SHARE = VISIBLE_MOTION_PX / SIZE
"""A keypoint is judged if some right answer, at some judged frame, moves it at least this share of the frame's side
away from its position in the target image."""

SILENT_SHARE = 0.25
"""Share of the clip's duration, at its start, that is not judged: the figure moves there from the target's pose into
the action."""


class Specified(Protocol):
    """Everything of a case that pictures and truth depend on; `benchmark.suites.puppets.PuppetCase` has more."""

    @property
    def case_id(self) -> str:
        """Id, for messages."""

    @property
    def action(self) -> str:
        """Name of the action."""

    @property
    def wrong_action(self) -> str:
        """Name of the action of the bound `wrong-action`."""

    @property
    def reference(self) -> Mapping[str, Any]:
        """Specification of the reference's scene."""

    @property
    def target(self) -> Mapping[str, Any]:
        """Specification of the target's scene."""

    @property
    def target_pose(self) -> tuple[float, ...]:
        """Channel values of the figure in the target image; empty: its neutral stance."""

    @property
    def digests(self) -> Mapping[str, str]:
        """Digests by `specification_digests`, as they were when the case was written."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Staged(Shown):
    """Content of a puppet case, whose right answer is known.

    Attributes:
        answer: Canonical right answer as a video.
        answer_values: Channel values of the canonical answer, float32 [T, 21].
        target_pose: Channel values of the target image, float32 [21].
        wrong: Video of the target performing the case's other action.
        reference_scene: Scene of `reference`, without its action.
        target_keypoints: True keypoints of the target image, float32 [K, 2]; nan for parts that its body lacks.
        in_words: Full caption of `answer`: its subject, and the movement of every channel.
    """

    truth: Truth
    candidates: Candidates
    answer: Video
    answer_values: torch.Tensor
    target_pose: torch.Tensor
    wrong: Video
    reference_scene: Scene
    target_scene: Scene
    source: Source
    target_keypoints: np.ndarray
    in_words: str


class ToldKeypoints(Protocol):
    """A method that receives the true keypoints of its two inputs; its `MethodEntry.needs` declares it."""

    def tell_keypoints(self, frames: np.ndarray, keypoints: np.ndarray) -> None:
        """Store the true keypoints [T, K, 2] of frames [T, H, W, 3], nan for parts that the body lacks."""


def tell_keypoints(method: ToldKeypoints, staged: Staged) -> None:
    """Give a method the true keypoints of a case's reference and target image."""
    method.tell_keypoints(staged.reference.frames, staged.source.keypoints)
    method.tell_keypoints(staged.target[None], staged.target_keypoints[None])


def named_action(name: str) -> PuppetAction:
    """Test or development action of a name.

    Raises:
        CaseError: If there is no action of that name.
    """
    try:
        return pool_of(name)[name]
    except KeyError:
        raise CaseError(f"action: unknown {name!r}") from None


def specification_digests(
    reference: Scene, target: Scene, action: PuppetAction, target_pose: Sequence[float] = NEUTRAL_POSE
) -> dict[str, str]:
    """Digests of a case's specification; pixels are not digested, since they may differ between processors."""
    motions = [[m.channel, m.shape, m.amplitude] for m in action]
    first = scene_to_dict(reference)
    second = {"scene": scene_to_dict(target), "pose": [float(value) for value in target_pose]}
    parts: dict[str, dict[str, Any]] = {
        "reference": {"scene": first, "action": motions},
        "target": second,
        "truth": {"reference": first, "target": second, "action": motions, "truth_version": TRUTH_VERSION},
    }
    return {name: digest({"renderer_version": RENDERER_VERSION, **part}) for name, part in parts.items()}


def scenes(case: Specified) -> tuple[Scene, Scene]:
    """Scenes of a case's reference and target.

    Raises:
        CaseError: If a scene's specification is damaged.
    """
    try:
        return scene_from_dict(dict(case.reference)), scene_from_dict(dict(case.target))
    except ValueError as error:
        raise CaseError(f"case {case.case_id}: {one_line(error)}") from error


def target_pose(case: Specified) -> tuple[float, ...]:
    """Channel values of the figure in a case's target image, 21 of them.

    Raises:
        CaseError: If their number is not 21.
    """
    pose = case.target_pose or NEUTRAL_POSE
    if len(pose) != len(CHANNELS):
        raise CaseError(f"case {case.case_id}: target_pose: expected {len(CHANNELS)} numbers, got {len(pose)}")
    return pose


def check_digests(case: Specified) -> None:
    """Refuse a case whose material has changed since the case was written.

    Raises:
        CaseError: If a digest differs; the message names it.
    """
    found = specification_digests(*scenes(case), named_action(case.action), target_pose(case))
    for name, value in found.items():
        if case.digests[name] != value:
            raise CaseError(f"case {case.case_id}: digests.{name}: the file says {case.digests[name]}, it is {value}")


def stage(case: Specified, form: Format) -> Staged:
    """Render a case.

    Raises:
        CaseError: If a scene or action is unknown, or the answer does not move.
    """
    reference, target = scenes(case)
    action, pose = named_action(case.action), target_pose(case)
    right = answers(reference, target, action).actions
    side = min(form.height, form.width)
    canonical = _framed(_render(target, right[0], form), form)
    image = _framed(target_clip(target, side, pose), form)
    truth = _truth(case, right, canonical, image, form)
    shown = _framed(_render(reference, action, form), form)
    wrong = _render(target, named_action(case.wrong_action), form)
    asked = candidates(target, case.action, right, form.num_frames, truth.first_settled_frame, side)
    return Staged(
        reference=shown.video,
        target=image.video.frames[0],
        truth=truth,
        candidates=replace(asked, keypoints=_on_frame(asked.keypoints, form)),
        answer=canonical.video,
        answer_values=curves(right[0], form.num_frames),
        target_pose=torch.tensor(pose),
        wrong=_framed(wrong, form).video,
        reference_scene=reference,
        target_scene=target,
        source=Source(_existing(shown), shown.parts >= 0, _seen_from(reference.camera, target, right[0], form)),
        target_keypoints=_existing(image)[0],
        in_words=caption(target, right[0], "full"),
    )


def _truth(case: Specified, right: Sequence[PuppetAction], canonical: Clip, image: Clip, form: Format) -> Truth:
    """Right answers: every blend from the image's pose into every right action; first the canonical one, unblended."""
    (_, target), side = scenes(case), min(form.height, form.width)
    pose, first = torch.tensor(target_pose(case)), first_scored_frame(form.num_frames)
    values = [blended(pose, curves(a, form.num_frames), share) for a in right for share in BLEND_SHARES]
    points = projections([target] * len(values), torch.stack(values), side).keypoints()
    keypoints = _on_frame(points.view(len(values), form.num_frames, len(KEYPOINTS), 2).numpy(), form)
    counted = counted_keypoints(keypoints[:, first:], image.keypoints[0], side) & image.keypoint_exists
    if not counted.any():
        raise CaseError(f"case {case.case_id}: action: '{case.action}' moves nothing on this target")
    return Truth(
        keypoints=keypoints,
        target_keypoints=image.keypoints[0],
        counted=counted,
        first_scored_frame=first,
        first_settled_frame=first_settled_frame(form.num_frames),
        frames=canonical.video.frames,
        parts=canonical.parts,
        bones=bone_ends(),
        bone_radii_px=canonical.bone_radii_px,
        body_size_px=target.camera.scale * side,
    )


def _seen_from(camera: Camera, scene: Scene, action: PuppetAction, form: Format) -> np.ndarray:
    """Keypoints [T, K, 2] of a scene's action from a camera's side; the figure stays where its own camera has it."""
    side = replace(scene.camera, yaw_deg=camera.yaw_deg, pitch_deg=camera.pitch_deg)
    values = curves(action, form.num_frames)[None]
    points = projections([replace(scene, camera=side)], values, min(form.height, form.width)).keypoints()
    return _on_frame(points.numpy(), form)


def performed(scene: Scene, values: torch.Tensor, form: Format) -> Video:
    """Video of a scene whose figure performs channel values [T, 21], drawn and framed like the videos of `stage`."""
    return _framed(render_values([scene], values[None], min(form.height, form.width))[0], form).video


def first_scored_frame(num_frames: int) -> int:
    """Index of the first frame at or after `SILENT_SHARE` of the clip; its first frame is at 0, its last at 1."""
    return math.ceil((num_frames - 1) * SILENT_SHARE)


def first_settled_frame(num_frames: int) -> int:
    """Index of the first frame at which even the longest blend of `BLEND_SHARES` has ended."""
    return math.ceil((num_frames - 1) * max(BLEND_SHARES))


def counted_keypoints(answers_px: np.ndarray, target_px: np.ndarray, side_px: int) -> np.ndarray:
    """Mask bool [K] of the keypoints of [A, T, K, 2] that some answer moves `COUNTED_MOTION_SHARE` away from [K, 2]."""
    moved = np.linalg.norm(answers_px - target_px, axis=-1).max(axis=(0, 1))
    return np.asarray(moved >= COUNTED_MOTION_SHARE * side_px)


def bone_ends() -> np.ndarray:
    """Indices int64 [12, 2] of the keypoints at both ends of each bone."""
    return np.array([[KEYPOINTS.index(end) for end in BONE_ENDS[bone]] for bone in BONES], dtype=np.int64)


def _existing(clip: Clip) -> np.ndarray:
    """Keypoints [T, K, 2] of a clip, nan for parts that the body lacks."""
    return np.where(clip.keypoint_exists[:, None], clip.keypoints, np.float32(np.nan))


def _render(scene: Scene, action: PuppetAction, form: Format) -> Clip:
    return render_clip(scene, action, form.num_frames, min(form.height, form.width))


def _framed(clip: Clip, form: Format) -> Clip:
    """Place a square clip in the middle of a frame of any shape (edge pixels repeated), at the format's rate."""
    side = min(form.height, form.width)
    top, left = (form.height - side) // 2, (form.width - side) // 2
    margins = ((0, 0), (top, form.height - side - top), (left, form.width - side - left))
    frames = np.pad(clip.video.frames, (*margins, (0, 0)), mode="edge")
    parts = np.pad(clip.parts, margins, constant_values=-1)
    return replace(clip, video=Video(frames, form.fps), keypoints=_on_frame(clip.keypoints, form), parts=parts)


def _on_frame(points: np.ndarray, form: Format) -> np.ndarray:
    """Convert positions [..., 2] on the square picture to positions on the frame around it."""
    side = min(form.height, form.width)
    corner = ((form.width - side) // 2, (form.height - side) // 2)
    return points + np.array(corner, dtype=np.float32)


def render_settings() -> Mapping[str, Any]:
    """Settings of the truth, for run.json."""
    return {
        "renderer_version": RENDERER_VERSION,
        "truth_version": TRUTH_VERSION,
        "counted_motion_share": COUNTED_MOTION_SHARE,
        "silent_share": SILENT_SHARE,
        "blend_shares": list(BLEND_SHARES),
        "candidates": candidate_settings(),
    }

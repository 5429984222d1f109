"""Floors and ceilings: values of a metric for videos that nobody had to generate.

The harness makes these videos, since they may use a case's truth; methods never may. Reading the table loads nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from benchmark.suites.case import Shown
    from benchmark.suites.truth import Staged
    from flexiact.backbone.backbone import Backbone
    from flexiact.pose.estimators import PoseEstimator
    from flexiact.task import Video


_GUIDANCE_BY_WORDS = 3.0
"""Guidance scale of the bounds in words; below it the puppet backbone follows a caption half as well."""


@dataclass(frozen=True)
class Bound:
    """One floor or ceiling.

    Attributes:
        version: Version, raised when the bound begins to give other videos.
        make: Deterministic function from a case (`benchmark.suites.truth.Staged`, or any `Shown` if the bound needs no
            truth), a backbone and a seed to the video.
        sees: Truth that the bound may read and no method may; "none" if it needs no truth.
        sampled: True if every seed gives another video; any other bound has one video per case.
        config: Function that returns the settings (JSON) that its videos depend on in addition to case and backbone;
            they are part of the keys.
    """

    version: int
    summary: str
    make: Callable[[Any, Backbone, int], Video]
    sees: str = "the truth"
    sampled: bool = False
    config: Callable[[], dict[str, Any]] = dict

    @property
    def needs_truth(self) -> bool:
        """Return True if it can be made only for cases whose right answer is known."""
        return self.sees != "none"


def _still(shown: Shown, backbone: Backbone, seed: int) -> Video:
    from flexiact.task import Video

    return Video(shown.target[None].repeat(len(shown.reference.frames), axis=0), shown.reference.fps)


def _oracle_blend(staged: Staged, number: int) -> Video:
    from flexiact.puppets.world.actions import blended
    from flexiact.puppets.world.answers import BLEND_SHARES

    return _by_target(staged, blended(staged.target_pose, staged.answer_values, BLEND_SHARES[number]))


def _arrive_and_freeze(staged: Staged, backbone: Backbone, seed: int) -> Video:
    from flexiact.puppets.world.answers import arrived

    return _by_target(staged, arrived(staged.target_pose, staged.answer_values))


def _relative(staged: Staged, backbone: Backbone, seed: int) -> Video:
    from flexiact.puppets.world.answers import relative

    return _by_target(staged, relative(staged.target_pose, staged.answer_values))


def _by_target(staged: Staged, values: Tensor) -> Video:
    """Video of the target image's figure performing channel values [T, 21]."""
    from benchmark.suites.case import Format
    from benchmark.suites.truth import performed

    num_frames, height, width = staged.answer.frames.shape[:3]
    return performed(staged.target_scene, values, Format(num_frames, height, width, staged.answer.fps))


def _retarget(staged: Staged, backbone: Backbone, seed: int) -> Video:
    from benchmark.bounds.retarget import retarget

    return _through_codec(retarget(staged, _pose_driver()), backbone)


@cache
def _pose_driver() -> PoseEstimator:
    """Estimator other than the judge: with the judge's own, shared errors would cancel and the bound look too good."""
    from flexiact.pose.rtmpose import PUPPETS, estimator_by_name

    return estimator_by_name(PUPPETS)


def _in_words(staged: Staged, backbone: Backbone, seed: int) -> Video:
    from flexiact.sampling import sample_video
    from flexiact.task import Request

    return sample_video(
        backbone,
        Request(staged.target.copy(), staged.in_words, seed),
        num_inference_steps=backbone.num_inference_steps,
        guidance_scale=max(backbone.guidance_scale, _GUIDANCE_BY_WORDS),
    )


def _through_codec(video: Video, backbone: Backbone) -> Video:
    import torch

    from flexiact.backbone.codec import decode_latents, encode_video
    from flexiact.task import Video

    # The posterior's noise has a fixed seed: the bound is one video per case, whatever the seeds of the methods.
    latents = encode_video(backbone, video.frames, torch.Generator().manual_seed(0))
    return Video(decode_latents(backbone, latents)[0], video.fps)


BOUNDS: dict[str, Bound] = {
    "still": Bound(1, "floor: the target image repeated", _still, sees="none"),
    "copy-reference": Bound(1, "floor: the reference video as it is", lambda shown, *_: shown.reference, sees="none"),
    "wrong-action": Bound(
        1, "floor: the target doing another action of like amplitude", lambda staged, *_: staged.wrong
    ),
    "arrive-and-freeze": Bound(
        1, "floor: the target going to where the action begins, in half of the clip, and no further", _arrive_and_freeze
    ),
    "relative": Bound(1, "floor: the target image's pose with the action's changes added", _relative),
    "in-words": Bound(
        1,
        "mark: the backbone alone, told the whole action in words: how far it can draw what it is asked for",
        _in_words,
        sees="the action in words",
        sampled=True,
        config=lambda: {"least_guidance_scale": _GUIDANCE_BY_WORDS},
    ),
    "retarget": Bound(
        1,
        "ceiling: the action estimated from the reference's pixels, both bodies and cameras known, through the VAE",
        _retarget,
        sees="both scenes' specifications, never the action",
        config=lambda: {"estimator": _pose_driver().name},
    ),
    "oracle-codec": Bound(
        1,
        "ceiling: the right answer through the backbone's VAE",
        lambda staged, backbone, _: _through_codec(staged.answer, backbone),
    ),
    "oracle-blend-4": Bound(
        1,
        "ceiling: the right answer, gone into from the target image's pose in half of the clip",
        lambda staged, *_: _oracle_blend(staged, 2),
    ),
    "oracle-blend-2": Bound(
        1, "ceiling: the same in a quarter of the clip", lambda staged, *_: _oracle_blend(staged, 1)
    ),
    "oracle": Bound(1, "ceiling: the right answer itself", lambda staged, *_: staged.answer),
}

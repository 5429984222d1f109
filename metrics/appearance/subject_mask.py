"""Does the video show the target's subject, or the reference's? By the colours inside masks of the subject.

Forms of `identity_masked` and `appearance_leakage` that need no truth. The masks come from a tool of the user's, such
as a segmenter, for the generated video, the target image and the reference.
"""

import numpy as np
from scipy.spatial import cKDTree

from metrics.appearance.appearance_error import colours_of
from metrics.appearance.identity import kept
from metrics.appearance.leakage import leaked
from metrics.features import Features, VideoFeatures
from metrics.metric import Metric


def _colours(video: VideoFeatures | None) -> np.ndarray:
    """Colours (CIE L*a*b*) of the subject in all frames: float [pixels, 3]."""
    assert video is not None and video.masks is not None
    return colours_of(video.frames[video.masks])


def subject_kept(features: Features) -> float | None:
    """Share of the generated subject's pixels whose colour the target's subject has anywhere: in [0, 1].

    Mean over frames; a frame without the subject counts 0.
    """
    made, target = features.generated, features.target
    assert made is not None and made.masks is not None and target is not None and target.masks is not None
    if not target.masks.any():
        return None
    right = cKDTree(_colours(target))
    frames = zip(made.frames, made.masks, strict=True)
    return float(np.mean([kept(frame[mask], right) if mask.any() else 0.0 for frame, mask in frames]))


def subject_leakage(features: Features) -> float | None:
    """Share of the generated subject's pixels that are nearer to the reference's subject than to the target's: [0, 1].

    Colours of all frames together, each compared with all colours of both subjects.
    """
    sides = [_colours(video) for video in (features.generated, features.target, features.reference)]
    if not all(map(len, sides)):
        return None
    return leaked(*sides)


SUBJECT_KEPT = Metric(
    name="subject_kept",
    version=1,
    unit="share",
    higher_is_better=True,
    bounds=(0.0, 1.0),
    needs=("generated", "target"),
    backend="mask",
    summary="share of the subject's pixels that have a colour of the target's subject; a frame without it counts 0",
    formula=subject_kept,
    undefined="the target image shows no subject",
    best_when="target",
    best_value=1.0,
    static=1.0,
    invariances=("frame_order",),
)
SUBJECT_LEAKAGE = Metric(
    name="subject_leakage",
    version=1,
    unit="share",
    higher_is_better=False,
    bounds=(0.0, 1.0),
    needs=("generated", "target", "reference"),
    backend="mask",
    summary="share of the subject's pixels that are nearer to the reference's subject than to the target's",
    formula=subject_leakage,
    undefined="a subject is not shown, or the two are too alike",
    best_when="target",
    best_value=0.0,
    static=0.0,
)

"""Does the subject get from the target image's pose into the action, and how abruptly?"""

import numpy as np

from metrics.features import Features, detected
from metrics.metric import Metric
from metrics.motion.motion_agreement import found_displacements, true_displacements

MAX_RATIO = 10.0
"""Upper bound of both ratios."""

_STILL_PX = 1e-6


def arrival(features: Features) -> float | None:
    """Keypoint error over the still image's, in frames from `Truth.first_settled_frame` on: at most `MAX_RATIO`.

    With displacements D as in `metrics.motion.motion_agreement` (zero for a miss), the ratio is the mean of |Dg - Dt|
    over the mean of |Dt|. The answer with the smallest ratio counts.
    """
    assert features.truth is not None
    first = features.truth.first_settled_frame
    found, true = found_displacements(features)[first:], true_displacements(features)[:, first:]
    if not true.size:
        return None
    still = np.linalg.norm(true, axis=-1).mean((1, 2))
    error = np.linalg.norm(found - true, axis=-1).mean((1, 2))
    moves = still > _STILL_PX
    return min(float((error[moves] / still[moves]).min()), MAX_RATIO) if moves.any() else None


def jump(features: Features) -> float | None:
    """Largest step of a counted keypoint between adjacent frames over the canonical answer's: at most `MAX_RATIO`.

    All frames count, the first ones too. A step counts if the keypoint was found at both of its ends.
    """
    made, truth = features.generated, features.truth
    assert made is not None and made.keypoints is not None and truth is not None
    found = detected(made)[:, truth.counted]
    points = np.where(found[..., None], made.keypoints[:, truth.counted], 0.0)
    seen = found[1:] & found[:-1]
    largest = _largest_step(points, seen)
    allowed = _largest_step(truth.keypoints[0][:, truth.counted], np.ones_like(seen))
    return min(largest / allowed, MAX_RATIO) if allowed > _STILL_PX else None


def _largest_step(points: np.ndarray, seen: np.ndarray) -> float:
    """Longest step of positions [T, C, 2] among those with both ends seen, bool [T - 1, C]; 0 if there is none."""
    length = np.linalg.norm(np.diff(points.astype(np.float64), axis=0), axis=-1)
    return float(length.max(initial=0.0, where=seen))


ARRIVAL = Metric(
    name="arrival",
    version=1,
    higher_is_better=False,
    bounds=(0.0, MAX_RATIO),
    needs=("generated", "target", "truth"),
    backend="pose",
    summary="keypoint error in the second half over a still image's; 0 is right, 1 is still, at most 10",
    formula=arrival,
    undefined="the truth is where the target image is, or no keypoint counts",
    best_when="truth",
    best_value=0.0,
    static=1.0,
    invariances=("keypoint_order", "answer_order", "resolution", "generated_shift"),
)
JUMP = Metric(
    name="jump",
    version=1,
    higher_is_better=None,
    bounds=(0.0, MAX_RATIO),
    needs=("generated", "truth"),
    backend="pose",
    summary="largest step of a joint between two frames over the truth's; 1 is right, 0 is still, at most 10",
    formula=jump,
    undefined="the truth does not move, or no keypoint counts",
    best_when="truth",
    best_value=1.0,
    static=0.0,
    invariances=("keypoint_order", "resolution", "generated_shift"),
)

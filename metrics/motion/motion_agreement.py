"""Does the subject move as it should? Joint displacements against the truth, so that standing still earns nothing.

Throughout, D is a keypoint's displacement from its position in the target image. On the generated side, the pose
estimator found both positions; on the true side, both are true. A constant offset of the estimator therefore cancels.
Only counted keypoints and frames from `Truth.first_scored_frame` on count. A keypoint that was not found, in the frame
or in the target image, is a miss: it has displacement zero. If a case has several acceptable answers, the best one
counts.
"""

import numpy as np

from metrics.features import Features, detected
from metrics.metric import Metric

PCK_SHARE = 0.1
"""Share of the body size within which a keypoint is right."""

MAX_LAG_FRAMES = 3
_MIN_LAG_WINDOW = 3  # frames to compare at every lag; with fewer, some lag fits by chance
MAX_AMPLITUDE_RATIO = 10.0
_STILL = 1e-12


def found_displacements(features: Features) -> np.ndarray:
    """Displacements of the counted keypoints of the generated video: float64 [T, C, 2] in pixels, misses zero."""
    made, target, truth = features.generated, features.target, features.truth
    assert made is not None and made.keypoints is not None and target is not None and target.keypoints is not None
    assert truth is not None
    found = detected(made) & detected(target)
    moved = np.where(found[..., None], made.keypoints, 0.0) - np.where(found[..., None], target.keypoints, 0.0)
    return moved[:, truth.counted].astype(np.float64)


def true_displacements(features: Features) -> np.ndarray:
    """Displacements of the counted keypoints in every acceptable answer: float64 [A, T, C, 2] in pixels."""
    truth = features.truth
    assert truth is not None
    points = truth.keypoints[:, :, truth.counted].astype(np.float64)
    return points - truth.target_keypoints[truth.counted].astype(np.float64)


def agreements(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Correlation about zero of displacements [F, C, 2] with each answer [A, F, C, 2]: [A] in [-1, 1].

    The value is sum<Dg, Dt> / sqrt(sum|Dg|^2 sum|Dt|^2), and 0 where either side stands still.
    """
    norms = np.sqrt((found**2).sum() * (true**2).sum((1, 2, 3)))
    dots = (found * true).sum((1, 2, 3))
    return np.divide(dots, norms, out=np.zeros(len(true)), where=norms > _STILL)


def _scored(features: Features) -> tuple[np.ndarray, np.ndarray] | None:
    """Both sides from the first scored frame on, without answers that do not move; None if no answer moves."""
    assert features.truth is not None
    first = features.truth.first_scored_frame
    found, true = found_displacements(features)[first:], true_displacements(features)[:, first:]
    true = true[(true**2).sum((1, 2, 3)) > _STILL]
    return (found, true) if len(true) else None


def motion_agreement(features: Features) -> float | None:
    """Best agreement with an acceptable answer, in [-1, 1]; 0 for a still video."""
    sides = _scored(features)
    return None if sides is None else float(agreements(*sides).max())


def amplitude_ratio(features: Features) -> float | None:
    """sqrt(sum|Dg|^2 / sum|Dt|^2) against the answer that agrees best; at most `MAX_AMPLITUDE_RATIO`."""
    sides = _scored(features)
    if sides is None:
        return None
    found, true = sides
    answer = true[int(agreements(found, true).argmax())]
    return min(float(np.sqrt((found**2).sum() / (answer**2).sum())), MAX_AMPLITUDE_RATIO)


def motion_lag(features: Features) -> float | None:
    """The shift in frames at which the motion agrees best; positive if the generated motion is late.

    Every lag compares the same true frames, so that no lag gains by leaving out hard frames. With lags up to M these
    are the frames from max(first_scored_frame, M) to T - 1 - M. M is 3, or less in short clips. Of lags that agree
    equally, the smallest shift counts.
    """
    assert features.truth is not None
    found, true = found_displacements(features), true_displacements(features)
    num_frames, first = len(found), features.truth.first_scored_frame
    for most in range(MAX_LAG_FRAMES, 0, -1):
        window = np.arange(max(first, most), num_frames - most)
        if len(window) >= _MIN_LAG_WINDOW:
            break
    else:
        return None
    lags = sorted(range(-most, most + 1), key=abs)
    best = [float(agreements(found[window + lag], true[:, window]).max(initial=0.0)) for lag in lags]
    top = max(best)
    return float(lags[[value > top - 1e-9 for value in best].index(True)]) if top > _STILL else None


def pck(features: Features) -> float | None:
    """Share of counted keypoints in scored frames within `PCK_SHARE` of the body size of the truth: in [0, 1].

    A keypoint that was not found is wrong. Positions are compared, not movements, so a still video does not get 0.
    """
    made, truth = features.generated, features.truth
    assert made is not None and made.keypoints is not None and truth is not None
    if not truth.counted.any():
        return None
    first, counted = truth.first_scored_frame, truth.counted
    found = detected(made)[first:, counted]
    points = np.where(found[..., None], made.keypoints[first:, counted], 0.0).astype(np.float64)
    distance = np.linalg.norm(points - truth.keypoints[:, first:, counted].astype(np.float64), axis=-1)
    return float((found & (distance <= PCK_SHARE * truth.body_size_px)).mean((1, 2)).max())


_STANDS = "the truth does not move, or no keypoint counts"
_SAME = ("keypoint_order", "answer_order", "resolution")

MOTION_AGREEMENT = Metric(
    name="motion_agreement",
    version=1,
    higher_is_better=True,
    bounds=(-1.0, 1.0),
    needs=("generated", "target", "truth"),
    backend="pose",
    summary="correlation of joint displacements with the truth; 0 for a still video",
    formula=motion_agreement,
    undefined=_STANDS,
    best_when="truth",
    best_value=1.0,
    static=0.0,
    invariances=(*_SAME, "generated_shift", "generated_amplitude"),
)
AMPLITUDE_RATIO = Metric(
    name="amplitude_ratio",
    version=1,
    higher_is_better=None,
    bounds=(0.0, MAX_AMPLITUDE_RATIO),
    needs=("generated", "target", "truth"),
    backend="pose",
    summary="size of the joint displacements over the truth's; 1 is right, 0 is still, larger than 10 is given as 10",
    formula=amplitude_ratio,
    undefined=_STANDS,
    best_when="truth",
    best_value=1.0,
    static=0.0,
    invariances=(*_SAME, "generated_shift"),
)
MOTION_LAG = Metric(
    name="motion_lag",
    version=1,
    unit="frames",
    higher_is_better=None,
    bounds=(-float(MAX_LAG_FRAMES), float(MAX_LAG_FRAMES)),
    needs=("generated", "target", "truth"),
    backend="pose",
    summary="shift at which the motion agrees best with the truth; 0 is right, positive is late",
    formula=motion_lag,
    undefined="the motion agrees with the truth at no lag, or the clip is too short to shift",
    best_when="truth",
    best_value=0.0,
    static="undefined",
    invariances=(*_SAME, "generated_shift", "generated_amplitude"),
)
PCK = Metric(
    name="pck",
    version=1,
    unit="share",
    higher_is_better=True,
    bounds=(0.0, 1.0),
    needs=("generated", "truth"),
    backend="pose",
    summary="share of keypoints within 0.1 of the body size of the truth; a missing detection is wrong",
    formula=pck,
    undefined="no keypoint counts",
    best_when="truth",
    best_value=1.0,
    invariances=_SAME,
)

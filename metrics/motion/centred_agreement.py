"""Does the subject move as it should, wherever it is? Compare joint movements about their own mean with the truth.

Only frames from `Truth.first_settled_frame` on count, where every right answer has arrived in the action. C is a
keypoint's position minus its mean position in those frames. The target image drops out, so that a video that goes to
the start of the action and stands still there earns nothing. A keypoint that was not found is a miss: its C is zero.
The mean is taken over the frames in which the keypoint was found, so that missing detections do not look like movement.
"""

import numpy as np

from metrics.features import Features, VideoFeatures, detected
from metrics.metric import Metric
from metrics.motion.motion_agreement import agreements

_ROUNDING_PX = 1e-4  # positions of one place differ by less in single precision
_STILL = 1e-12


def about_the_middle(points: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Positions [F, K, 2] minus each keypoint's mean over the frames where it is found, bool [F, K]; misses zero."""
    # The first position is subtracted beforehand, so that a keypoint that stands still is at zero exactly.
    away = np.where(found[..., None], points - points[found.argmax(0), np.arange(points.shape[1])], 0.0)
    middle = away.sum(axis=0) / np.maximum(found.sum(axis=0), 1)[:, np.newaxis]
    away = np.where(found[..., None], away - middle, 0.0)
    return np.where(np.abs(away) < _ROUNDING_PX, 0.0, away)


def found_movement(made: VideoFeatures, first: int, counted: np.ndarray) -> np.ndarray:
    """C [F, C, 2] of the generated video's counted keypoints, bool [K], from frame `first` on."""
    assert made.keypoints is not None
    found = detected(made)[first:, counted]
    points = np.where(found[..., None], made.keypoints[first:, counted], 0.0).astype(np.float64)
    return about_the_middle(points, found)


def true_movement(points: np.ndarray) -> np.ndarray:
    """C [A, F, K, 2] of known positions [A, F, K, 2]."""
    every = np.ones(points.shape[1:3], dtype=bool)
    return np.stack([about_the_middle(one.astype(np.float64), every) for one in points])


def motion_agreement_centred(features: Features) -> float | None:
    """Best correlation of C with the C of an acceptable answer, in [-1, 1]; 0 for a frozen video."""
    made, truth = features.generated, features.truth
    assert made is not None and truth is not None
    first, counted = truth.first_settled_frame, truth.counted
    true = true_movement(truth.keypoints[:, first:, counted])
    true = true[(true**2).sum((1, 2, 3)) > _STILL]
    return float(agreements(found_movement(made, first, counted), true).max()) if len(true) else None


def action_retrieval(features: Features) -> float | None:
    """1 if the candidate that agrees best with the video is a right one, else 0; 0 for a still video.

    All keypoints of the body count. A keypoint that no candidate moves lowers all agreements equally.
    """
    made, truth, candidates = features.generated, features.truth, features.candidates
    assert made is not None and truth is not None and candidates is not None
    first = truth.first_settled_frame
    exists = np.isfinite(candidates.keypoints).all((0, 1, 3))
    true = true_movement(candidates.keypoints[:, first:, exists])
    if not (true[candidates.right] ** 2).sum() > _STILL:
        return None
    near = agreements(found_movement(made, first, exists), true)
    best = int(near.argmax())
    return float(near[best] > _STILL and candidates.right[best])


MOTION_AGREEMENT_CENTRED = Metric(
    name="motion_agreement_centred",
    version=1,
    higher_is_better=True,
    bounds=(-1.0, 1.0),
    needs=("generated", "truth"),
    backend="pose",
    summary="correlation with the true joint movements in the second half, about their middle; 0 for a frozen video",
    formula=motion_agreement_centred,
    undefined="the truth does not move in the second half, or no keypoint counts",
    best_when="truth",
    best_value=1.0,
    static=0.0,
    invariances=("keypoint_order", "answer_order", "resolution", "generated_shift", "generated_amplitude"),
)
ACTION_RETRIEVAL = Metric(
    name="action_retrieval",
    version=1,
    higher_is_better=True,
    bounds=(0.0, 1.0),
    needs=("generated", "truth", "candidates"),
    backend="pose",
    summary="1 when the nearest of all named actions, done by this target, is the right one, else 0; 0 when still",
    formula=action_retrieval,
    undefined="the right action does not move in the second half",
    best_when="truth",
    best_value=1.0,
    static=0.0,
    invariances=("keypoint_order", "resolution", "generated_shift", "generated_amplitude"),
)

"""Do parts of the generated video move like parts of the reference? Tracklet similarity needs no truth.

The formula follows the motion fidelity of Yatim et al. (Space-Time Diffusion Features, CVPR 2024) as used by FlexiAct.
The similarity of two tracklets is the mean over time of the cosine of their frame-to-frame velocities. Every tracklet
keeps its best match in the other video. `_upstream` is the released formula, faults included.
"""

import numpy as np

from metrics.features import MIN_SEEN_SHARE, Features, VideoFeatures, steps
from metrics.metric import Metric

STILL_SHARE = 0.002
"""A step shorter than this share of the frame's diagonal counts as standing still: it has no direction."""

MOVING_SHARE = 0.04
"""A tracklet that never gets this share of the diagonal away from its start is background or tracker jitter.

The best of many matches counts, so a few jittering points find flattering partners. On rendered 64x64 clips a share of
0.01 gave the right action 0.85, another action 0.35 and a still video with noise 0.45; shares of 0.03 and 0.05 gave
0.93, 0.16 to 0.11 and 0.4 to 0.25. A still video that flickers is thus above 0: read the dynamic degree too."""

_ROWS = 512  # tracklets compared at a time, to bound the memory to tens of megabytes


def moving_tracklets(video: VideoFeatures) -> tuple[np.ndarray, ...]:
    """Mask of the N tracklets that count, and the steps of those M.

    Returns:
        Mask, bool [N]; unit velocities [M, S, 2], 0 if still or unseen; seen and moves, each bool [M, S].
    """
    step, seen = steps(video)
    speed = np.linalg.norm(step, axis=-1)
    moves = seen & (speed > STILL_SHARE)
    unit = np.divide(step, speed[..., None], out=np.zeros_like(step), where=moves[..., None])
    # Unseen steps add nothing here, so a track that jumps while hidden has not moved.
    away = np.linalg.norm(np.cumsum(step, axis=1), axis=-1).max(1, initial=0.0)
    keep = (seen.mean(1) >= MIN_SEEN_SHARE) & (away >= MOVING_SHARE) & moves.any(1)
    return keep, unit[keep], seen[keep], moves[keep]


def similarity(a: tuple[np.ndarray, ...], b: tuple[np.ndarray, ...]) -> np.ndarray:
    """Similarities [M, N] in [-1, 1] of all pairs; -inf where two tracklets are rarely visible together.

    A similarity is the mean of the cosine over the steps at which both are visible and at least one moves; where only
    one moves, the cosine is 0. The sum over time of the cosines is one product of the flattened unit velocities.
    """
    (unit_a, seen_a, moves_a), (unit_b, seen_b, moves_b) = a, b
    sums = unit_a.reshape(len(unit_a), -1) @ unit_b.reshape(len(unit_b), -1).T
    together = seen_a.astype(float) @ seen_b.astype(float).T
    both_still = (seen_a & ~moves_a).astype(float) @ (seen_b & ~moves_b).astype(float).T
    counted = together - both_still
    fits = (together >= MIN_SEEN_SHARE * seen_a.shape[1]) & (counted > 0)
    return np.divide(sums, counted, out=np.full_like(sums, -np.inf), where=fits)


def motion_fidelity(features: Features) -> float | None:
    """Mean over both videos of the mean similarity of their moving tracklets with the best match: in [-1, 1].

    Background has no direction and is left out on both sides, so a still video gets 0, not the share of its background.
    A tracklet without any match scores 0. Invisible points do not count.
    """
    made, reference = features.generated, features.reference
    assert made is not None and reference is not None
    if made.num_frames != reference.num_frames or made.num_frames < 2:
        return None
    a, b = moving_tracklets(made)[1:], moving_tracklets(reference)[1:]
    if not len(b[0]):
        return None
    if not len(a[0]):
        return 0.0
    best_b = np.full(len(b[0]), -np.inf)
    best_a = []
    for row in range(0, len(a[0]), _ROWS):
        matches = similarity(tuple(part[row : row + _ROWS] for part in a), b)
        best_a.append(matches.max(1))
        best_b = np.maximum(best_b, matches.max(0))
    sides = [np.where(np.isfinite(side), side, 0.0).mean() for side in (np.concatenate(best_a), best_b)]
    return float(np.mean(sides))


def motion_fidelity_upstream(features: Features) -> float | None:
    """The released formula: one-sided, with an identity matrix subtracted (hence [-2, 1]), visibility ignored.

    C holds the mean over time of the cosines with each reference tracklet. The value is the mean over the generated
    tracklets of the largest entry of their row in C - I. The formula divides by each step's length, so one point that
    stands still for one step makes the released value NaN; it is None here. Both videos need equally many tracklets.
    """
    made, reference = features.generated, features.reference
    assert made is not None and made.tracks is not None and reference is not None and reference.tracks is not None
    if made.tracks.shape != reference.tracks.shape or made.num_frames < 2 or not len(made.tracks):
        return None
    sides = []
    for tracks in (made.tracks, reference.tracks):
        if not np.isfinite(tracks).all():
            return None
        step = np.diff(tracks.astype(np.float64), axis=1)
        length = np.linalg.norm(step, axis=-1, keepdims=True)
        if not length.all():
            return None
        sides.append((step / length).reshape(len(tracks), -1))
    best = []
    for row in range(0, len(sides[0]), _ROWS):
        matches = sides[0][row : row + _ROWS] @ sides[1].T / (made.num_frames - 1)
        index = np.arange(len(matches))
        matches[index, row + index] -= 1.0
        best.append(matches.max(1))
    return float(np.concatenate(best).mean())


MOTION_FIDELITY = Metric(
    name="motion_fidelity",
    version=1,
    higher_is_better=True,
    bounds=(-1.0, 1.0),
    needs=("generated", "reference"),
    backend="tracker",
    summary="similarity of moving tracklets with the reference's, both ways; 0 for a still video",
    formula=motion_fidelity,
    undefined="nothing moves in the reference",
    same_length=True,
    best_when="reference",
    best_value=1.0,
    static=0.0,
    invariances=("track_order", "track_repetition", "track_shift", "unseen_positions", "resolution"),
)
MOTION_FIDELITY_UPSTREAM = Metric(
    name="motion_fidelity_upstream",
    version=1,
    higher_is_better=True,
    bounds=(-2.0, 1.0),
    needs=("generated", "reference"),
    backend="tracker",
    summary="tracklet similarity as in FlexiAct's released code, for comparison with published numbers only",
    formula=motion_fidelity_upstream,
    undefined="the released formula is NaN: a tracked point stands still; or the numbers of points differ",
    same_length=True,
    static="undefined",
    invariances=("track_shift", "track_speed", "resolution"),
)

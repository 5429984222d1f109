"""Distances of whole paths of points. They see magnitude and place; the cosines of velocities do not.

The discrete Frechet distance of two paths (Eiter and Mannila 1994) is the shortest leash on which two walkers, each of
whom steps on or waits, can go along them. Pace does not matter to it, direction and place do. Frames in which a point
was not found are left out of its path.
"""

import numpy as np

from metrics.features import Features, VideoFeatures, detected
from metrics.metric import Metric
from metrics.motion.motion_fidelity import moving_tracklets, similarity

MAX_DISTANCE = 1.0
"""Body sizes: the most that a keypoint can be away from its true path, and the cost of one that was never found."""

MAX_TRACKLETS = 128
"""More moving tracklets a video than this are thinned out evenly, which bounds time and memory."""

_DISTANCES = 2_000_000  # of points, at a time, to bound the memory to tens of megabytes


def frechet(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Discrete Frechet distances of paths [..., S, 2] and [..., T, 2], float64 of the leading axes, broadcast."""
    apart = np.linalg.norm(first[..., :, None, :] - second[..., None, :, :], axis=-1)
    leash = np.empty_like(apart)
    for s in range(apart.shape[-2]):
        for t in range(apart.shape[-1]):
            before = [leash[..., i, j] for i, j in ((s - 1, t), (s, t - 1), (s - 1, t - 1)) if i >= 0 and j >= 0]
            leash[..., s, t] = np.maximum(apart[..., s, t], np.minimum.reduce(before)) if before else apart[..., 0, 0]
    return np.asarray(leash[..., -1, -1])


def _held(points: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Paths [N, T, 2] with places held while a point is not found, bool [N, T]: the same to the Frechet distance.

    Before it is found first it is held where that is. Paths that are found nowhere become zero.
    """
    order = np.arange(found.shape[1])
    last = np.maximum.accumulate(np.where(found, order, -1), axis=1)
    source = np.where(last >= 0, last, found.argmax(1)[:, None])
    clean = np.where(found[..., None], points, 0.0).astype(np.float64)
    return np.take_along_axis(clean, source[..., None], axis=1)


def frechet_to_truth(features: Features) -> float | None:
    """Root mean square over counted keypoints of the distance of their paths from the true ones, in body sizes: [0, 1].

    From `Truth.first_scored_frame` on, each distance at most `MAX_DISTANCE`; against the answer for which it is least.
    After RoPECraft's FTD (arXiv 2505.13344), which compares tracks of the same pixels of two videos and so wants both
    subjects at one place; here the keypoints say what belongs together and the truth where it must go.
    """
    made, truth = features.generated, features.truth
    assert made is not None and made.keypoints is not None and truth is not None
    if not truth.counted.any():
        return None
    first, counted = truth.first_scored_frame, truth.counted
    found = detected(made)[first:, counted].T
    path = _held(made.keypoints[first:, counted].swapaxes(0, 1), found)
    true = truth.keypoints[:, first:, counted].swapaxes(1, 2).astype(np.float64)
    apart = np.minimum(frechet(path, true) / truth.body_size_px, MAX_DISTANCE)
    apart = np.where(found.any(1), apart, MAX_DISTANCE)
    return float(np.sqrt((apart**2).mean(1)).min())


def motion_fidelity_hybrid(features: Features) -> float | None:
    """Half place, half direction: mean of each moving tracklet's best match in the reference, in [-.5, 1].

    After MTBench's hybrid motion fidelity: a match is .5 exp(-d) + .5 c, with d the discrete Frechet distance of the
    two paths in shares of the frame's width and height, and c the mean cosine of their velocities as in
    `metrics.motion.motion_fidelity`, where static and hidden points do no harm. The formula is the paper's; its code
    takes the mean of all distances of points for d. 0 for a video in which nothing moves.
    """
    made, reference = features.generated, features.reference
    assert made is not None and reference is not None
    if made.num_frames != reference.num_frames or made.num_frames < 2:
        return None
    a, b = _thinned(made), _thinned(reference)
    if not len(b[0]):
        return None
    if not len(a[0]):
        return 0.0
    direction = similarity(a[1:], b[1:])
    rows = max(1, _DISTANCES // (len(b[0]) * made.num_frames**2))
    parts = [a[0][row : row + rows, None] for row in range(0, len(a[0]), rows)]
    leash = np.concatenate([frechet(part, b[0]) for part in parts])
    match = np.where(np.isfinite(direction), 0.5 * np.exp(-leash) + 0.5 * direction, -np.inf).max(1)
    return float(np.where(np.isfinite(match), match, 0.0).mean())


def _thinned(video: VideoFeatures) -> tuple[np.ndarray, ...]:
    """Of at most `MAX_TRACKLETS` moving tracklets: paths in shares of the frame, and what `moving_tracklets` gives."""
    assert video.tracks is not None and video.track_visible is not None
    keep, *rest = moving_tracklets(video)
    chosen = np.linspace(0, keep.sum() - 1, min(keep.sum(), MAX_TRACKLETS)).round().astype(int)
    tracks, visible = video.tracks[keep][chosen], video.track_visible[keep][chosen]
    height, width = video.frames.shape[1:3]
    paths = _held(tracks, visible & np.isfinite(tracks).all(-1)) / (width, height)
    return paths, *(part[chosen] for part in rest)


FRECHET_TO_TRUTH = Metric(
    name="frechet_to_truth",
    version=1,
    unit="body sizes",
    higher_is_better=False,
    bounds=(0.0, MAX_DISTANCE),
    needs=("generated", "truth"),
    backend="pose",
    summary="distance of the joints' paths from the true ones, whatever the pace; one never found costs 1",
    formula=frechet_to_truth,
    undefined="no keypoint counts",
    best_when="truth",
    best_value=0.0,
    invariances=("keypoint_order", "answer_order", "resolution"),
)
MOTION_FIDELITY_HYBRID = Metric(
    name="motion_fidelity_hybrid",
    version=1,
    higher_is_better=True,
    bounds=(-0.5, 1.0),
    needs=("generated", "reference"),
    backend="tracker",
    summary="half likeness of moving tracklets' paths to the reference's, place included, half of their directions",
    formula=motion_fidelity_hybrid,
    undefined="nothing moves in the reference, or the videos differ in length",
    best_when="reference",
    best_value=1.0,
    static=0.0,
    invariances=("unseen_positions", "resolution"),
)

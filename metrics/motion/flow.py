"""Motion of every pixel, by OpenCV's dense inverse search: how much moves, where, and whether the picture follows it.

Flow sees magnitude and place, which cosines of tracklets do not, and needs neither points nor a network.
"""

from functools import lru_cache

import numpy as np

from metrics.features import Features, Truth, VideoFeatures
from metrics.metric import Metric

MIN_SIDE, MAX_SIDE = 128, 256
"""Frames whose shorter side is outside are scaled to the nearer one: dense inverse search wants some pixels, and its
answer hardly changes with more."""

STILL_SHARE = 0.002
"""A pixel that moves less than this share of the frame's diagonal in a step stands still."""

STILL_LEVELS = 8
"""Grey levels of 255 by which some channel must change in a step, or the picture is the same there."""

NEIGHBOURHOOD = 5
"""Side in pixels of the square around a pixel in which a change counts for it."""

SPEED_BINS, ANGLE_BINS = 20, 18

MAX_ERROR = 10.0
"""The most that the flow's error over the truth's flow can be."""


def flow_name() -> str:
    """The method and OpenCV's version, on which values depend."""
    import cv2

    return f"dense inverse search, medium, opencv {cv2.__version__}"


def _scaled(frames: np.ndarray) -> np.ndarray:
    """Frames [T, H, W, 3] at the size that flow is measured at."""
    import cv2

    height, width = frames.shape[1:3]
    factor = np.clip(min(height, width), MIN_SIDE, MAX_SIDE) / min(height, width)
    size = (round(width * factor), round(height * factor))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, size, interpolation=how) for frame in frames])


def _dense(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Flow float32 [N, h, w, 2] in pixels from each frame of [N, h, w, 3] to the one of the same number."""
    import cv2

    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    sides = ([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames] for frames in (first, second))
    pairs = zip(*sides, strict=True)
    return np.stack([search.calc(a, b, None) for a, b in pairs])  # type: ignore[call-overload]


@lru_cache(maxsize=4)
def _followed(video: VideoFeatures | Truth) -> tuple[np.ndarray, np.ndarray]:
    """Scaled frames [T, h, w, 3] and their forward flow [T - 1, h, w, 2] in pixels; T >= 2.

    The last answers are kept, since several metrics ask for those of one video.
    """
    frames = _scaled(video.frames)
    return frames, _dense(frames[:-1], frames[1:])


def flow(video: VideoFeatures | Truth) -> np.ndarray:
    """Flow float32 [T - 1, h, w, 2] between neighbouring frames, in shares of the diagonal; T >= 2.

    It is zero where the picture does not change: over flat ground, where any flow explains it, the search goes on with
    that of the nearest thing that moves.
    """
    import cv2

    frames, found = _followed(video)
    change = np.abs(np.diff(frames.astype(np.int16), axis=0)).max(-1) > STILL_LEVELS
    around = np.ones((NEIGHBOURHOOD, NEIGHBOURHOOD), np.uint8)
    moves = np.stack([cv2.dilate(step.astype(np.uint8), around) for step in change])
    return found * moves[..., None] / np.float32(np.hypot(*frames.shape[1:3]))


def _pair(features: Features) -> tuple[np.ndarray, np.ndarray] | None:
    """Flow of the generated and of the reference video; None where they differ in length or size."""
    made, reference = features.generated, features.reference
    assert made is not None and reference is not None
    if made.frames.shape != reference.frames.shape or made.num_frames < 2:
        return None
    return flow(made), flow(reference)


def flow_error_to_truth(features: Features) -> float | None:
    """Sum over pixels and steps of |Fg - Ft| over that of |Ft|, in frames that have settled: in [0, `MAX_ERROR`].

    F is the flow of the generated video and of the canonical answer. 0 for the truth, 1 for a still video, and above 1
    for what is worse than standing still; direction, magnitude and place all count.
    """
    made, truth = features.generated, features.truth
    assert made is not None and truth is not None
    if len(truth.frames) - truth.first_settled_frame < 2:
        return None
    true = flow(truth)[truth.first_settled_frame :].astype(np.float64)
    size = np.linalg.norm(true, axis=-1).sum()
    if not size > 0:
        return None
    return min(float(np.linalg.norm(flow(made)[truth.first_settled_frame :] - true, axis=-1).sum() / size), MAX_ERROR)


def flow_fidelity(features: Features) -> float | None:
    """Similarity of both videos' histograms of the speed and direction of moving pixels, in [0, 1].

    After FlexiMMT (CVPR 2026): the mean of two Bhattacharyya coefficients sum sqrt(p q), of `SPEED_BINS` bins of the
    speed over its mean, up to the larger 99th percentile of both sides, and of `ANGLE_BINS` bins of the direction;
    then the mean over steps. FlexiMMT takes the pixels of each object's mask, from a network; here they are those that
    move. A step in which the generated video stands still is 0; one in which the reference does is left out. Blind to
    magnitude and to place; movement at the same speeds in opposite directions has one half.
    """
    pair = _pair(features)
    if pair is None:
        return None
    made, right = ([step[np.linalg.norm(step, axis=-1) > STILL_SHARE] for step in side] for side in pair)
    values = [_alike(a, b) if len(a) else 0.0 for a, b in zip(made, right, strict=True) if len(b)]
    return float(np.mean(values)) if values else None


def _alike(first: np.ndarray, second: np.ndarray) -> float:
    """Of moving pixels' flow [M, 2] and [N, 2] of one step."""
    speeds = [np.linalg.norm(side.astype(np.float64), axis=-1) for side in (first, second)]
    speeds = [speed / speed.mean() for speed in speeds]
    top = max(np.percentile(speed, 99) for speed in speeds)
    angles = [np.arctan2(side[:, 1], side[:, 0]) for side in (first, second)]
    by_speed = [np.histogram(speed, SPEED_BINS, (0, top))[0] for speed in speeds]
    by_angle = [np.histogram(angle, ANGLE_BINS, (-np.pi, np.pi))[0] for angle in angles]
    return (_overlap(*by_speed) + _overlap(*by_angle)) / 2


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Bhattacharyya coefficient of two histograms of counts, neither of them empty."""
    return float(np.sqrt(first / first.sum() * (second / second.sum())).sum())


def layout_leakage_flow(features: Features) -> float | None:
    """Correlation about zero of the flow of both videos at the same pixels and steps: in [-1, 1].

    sum<Fg, Fr> / sqrt(sum|Fg|^2 sum|Fr|^2), and 0 for a still video. High where the same moves at the same place. It
    knows no truth: where the target stands as the reference does, the right answer is high as well.
    """
    pair = _pair(features)
    if pair is None:
        return None
    made, reference = (side.astype(np.float64) for side in pair)
    size = (reference**2).sum()
    if not size > 0:
        return None
    norm = np.sqrt((made**2).sum() * size)
    return float((made * reference).sum() / norm) if norm > 0 else 0.0


def warping_error(features: Features) -> float | None:
    """Distance of the frames from their successors warped back along the flow: root mean square, in grey levels.

    After Lai et al. (ECCV 2018), whose error is the mean square; in [0, 255], over pixels whose flow there and back
    agree (|F + B|^2 <= .01 (|F|^2 + |B|^2) + .5, in pixels), all steps and channels together. 0 for a still video.
    """
    import cv2

    made = features.generated
    assert made is not None
    if made.num_frames < 2:
        return None
    frames, there = _followed(made)
    height, width = frames.shape[1:3]
    back, (y, x) = _dense(frames[1:], frames[:-1]), np.mgrid[:height, :width].astype(np.float32)
    errors = []
    for t, step in enumerate(there):
        at = x + step[..., 0], y + step[..., 1]
        images = frames[t + 1].astype(np.float32), back[t]
        warped, returned = (cv2.remap(image, *at, cv2.INTER_LINEAR) for image in images)
        inside = (at[0] >= 0) & (at[0] <= width - 1) & (at[1] >= 0) & (at[1] <= height - 1)
        size = (step**2).sum(-1) + (returned**2).sum(-1)
        seen = inside & (((step + returned) ** 2).sum(-1) <= 0.01 * size + 0.5)
        errors.append(((frames[t].astype(np.float64) - warped) ** 2)[seen].ravel())
    every = np.concatenate(errors)
    return float(np.sqrt(every.mean())) if len(every) else None


FLOW_ERROR_TO_TRUTH = Metric(
    name="flow_error_to_truth",
    version=1,
    higher_is_better=False,
    bounds=(0.0, MAX_ERROR),
    needs=("generated", "truth"),
    backend="flow",
    summary="difference of the optical flow from the true one in the second half; 1 for a still video, at most 10",
    formula=flow_error_to_truth,
    undefined="the truth does not move in the second half",
    best_when="truth",
    best_value=0.0,
    static=1.0,
    invariances=("answer_order",),
)
FLOW_FIDELITY = Metric(
    name="flow_fidelity",
    version=1,
    higher_is_better=True,
    bounds=(0.0, 1.0),
    needs=("generated", "reference"),
    backend="flow",
    summary="likeness of the speeds and directions of what moves to the reference's, wherever it is; 0 when still",
    formula=flow_fidelity,
    undefined="nothing moves in the reference, or the videos differ in length or size",
    best_when="reference",
    best_value=1.0,
    static=0.0,
)
LAYOUT_LEAKAGE_FLOW = Metric(
    name="layout_leakage_flow",
    version=1,
    higher_is_better=None,
    bounds=(-1.0, 1.0),
    needs=("generated", "reference"),
    backend="flow",
    summary="correlation of the optical flow with the reference's at the same pixels; 1 for a copy, 0 when still",
    formula=layout_leakage_flow,
    undefined="nothing moves in the reference, or the videos differ in length or size",
    static=0.0,
)
WARPING_ERROR = Metric(
    name="warping_error",
    version=1,
    unit="grey levels",
    higher_is_better=False,
    bounds=(0.0, 255.0),
    needs=("generated",),
    backend="flow",
    summary="what is left between a frame and the next one warped back along the flow; 0 for a still video",
    formula=warping_error,
    undefined="the video has one frame, or the flow can be trusted nowhere",
    best_when="target",
    best_value=0.0,
    static=0.0,
)

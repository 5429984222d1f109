"""Paths and optical flow: magnitude and place count, each where it should."""

from dataclasses import replace

import numpy as np
import pytest

from metrics import METRICS, Features, VideoFeatures
from metrics.motion.flow import flow
from metrics.motion.trajectories import MAX_TRACKLETS, frechet
from tests.support.metric_features import NUM_FRAMES, features, perfect


def value(name: str, made: Features) -> float | None:
    return METRICS[name].compute(made)


def spoiled(made: Features, **changes: np.ndarray) -> Features:
    return replace(made, generated=replace(made.generated, **changes))


# --------------------------------------------------------------------------------------------------------------- paths


def test_frechet_of_known_paths():
    line = np.stack([np.arange(6.0), np.zeros(6)], -1)
    assert frechet(line, line + [0, 3]) == 3
    assert frechet(line, line[::-1]) == 5
    assert frechet(line, np.repeat(line, [1, 4, 1, 2, 1, 1], axis=0)) == 0, "pace does not matter"
    loop = np.array([[0, 0], [2, 4], [2, -4], [5, 0]], float)
    assert frechet(line, loop) == pytest.approx(4)
    assert frechet(np.stack([line, line + 1]), line).tolist() == [0, pytest.approx(np.sqrt(2))]


def test_paths_beside_the_true_ones_are_off_by_the_shift():
    made = perfect(features(), "truth")
    beside = spoiled(made, keypoints=made.generated.keypoints + np.array([3, 4], np.float32))
    assert value("frechet_to_truth", beside) == pytest.approx(5 / made.truth.body_size_px, abs=0.02)
    assert value("motion_agreement_centred", beside) == pytest.approx(1), "which a correlation does not see"


def test_paths_see_amplitude():
    made = perfect(features(), "truth")
    origin = made.target.keypoints
    larger = spoiled(made, keypoints=origin + 3 * (made.generated.keypoints - origin))
    assert value("motion_agreement", larger) == pytest.approx(1) and value("frechet_to_truth", larger) > 0.05


def test_a_keypoint_never_found_costs_one_and_one_missed_at_times_its_gap():
    made = perfect(features(), "truth")
    scores = made.generated.keypoint_scores.copy()
    scores[:, 0] = 0
    assert value("frechet_to_truth", spoiled(made, keypoint_scores=scores)) == pytest.approx(np.sqrt(1 / 6))
    scores = made.generated.keypoint_scores.copy()
    scores[4, 0] = 0
    assert 0 < value("frechet_to_truth", spoiled(made, keypoint_scores=scores)) < 0.05


def straight(number: int, start: float, step: tuple[float, float]) -> VideoFeatures:
    """Tracks that all move by the same step a frame."""
    begin = np.stack([start + np.linspace(0, 20, number), np.full(number, start)], -1)
    tracks = (begin[:, None] + np.arange(NUM_FRAMES)[:, None] * np.array(step)).astype(np.float32)
    return VideoFeatures(np.zeros((NUM_FRAMES, 50, 100, 3), np.uint8), None, tracks, np.ones(tracks.shape[:2], bool))


def test_hybrid_is_half_place_and_half_direction():
    def hybrid(made: VideoFeatures) -> float | None:
        return value("motion_fidelity_hybrid", Features(generated=made, reference=straight(1, 10, (2, 0))))

    assert hybrid(straight(1, 10, (2, 0))) == pytest.approx(1)
    assert hybrid(straight(1, 20, (2, 0))) == pytest.approx(0.5 * np.exp(-np.hypot(0.1, 0.2)) + 0.5)
    assert hybrid(straight(1, 10, (0, 2))) < 0.5
    backwards = straight(1, 26, (-2, 0))
    assert hybrid(backwards) < 0.5 < hybrid(straight(1, 40, (2, 0)))
    assert hybrid(straight(3 * MAX_TRACKLETS, 10, (2, 0))) == pytest.approx(
        0.5 + 0.5 * np.exp(-np.linspace(0, 0.2, MAX_TRACKLETS)).mean(), abs=1e-3
    )


# ---------------------------------------------------------------------------------------------------------------- flow


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A random picture without detail finer than some pixels."""
    import cv2

    coarse = np.random.default_rng(seed).integers(0, 256, (height // 6 + 2, width // 6 + 2, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def window(step: float, height: int = 64, width: int = 64) -> VideoFeatures:
    """A window that slides over a picture: everything moves by -step pixels a frame along x."""
    whole = picture(height, width + 80)
    return VideoFeatures(
        np.stack([whole[:, 40 + round(t * step) : 40 + round(t * step) + width] for t in range(NUM_FRAMES)])
    )


def patch(place: tuple[int, int], step: int = 2) -> VideoFeatures:
    """A textured square of 20 pixels that moves to the right before a flat ground."""
    frames, square = np.full((NUM_FRAMES, 64, 96, 3), 128, np.uint8), picture(20, 20, 1)
    for t in range(NUM_FRAMES):
        frames[t, place[0] : place[0] + 20, place[1] + t * step : place[1] + t * step + 20] = square
    return VideoFeatures(frames)


@pytest.mark.parametrize("size", [(8, 8), (30, 100), (300, 400)])
def test_flow_is_a_known_shift_in_shares_of_the_diagonal(size):
    step = 1 if size[0] == 8 else 3
    found = flow(window(step, *size))
    assert found.shape[0] == NUM_FRAMES - 1 and 128 <= min(found.shape[1:3]) <= 256
    inner = np.median(found[:, 30:-30, 30:-30], axis=(0, 1, 2)) * np.hypot(*size)
    assert inner == pytest.approx([-step, 0], abs=0.3)


def against_truth(made: VideoFeatures, true: VideoFeatures) -> float | None:
    base = features().truth
    shape = true.frames.shape
    truth = replace(base, frames=true.frames, parts=np.full(shape[:3], -1, np.int8))
    return value("flow_error_to_truth", Features(generated=made, truth=truth))


def test_flow_error_sees_magnitude_direction_and_place():
    still = VideoFeatures(np.repeat(window(2).frames[:1], NUM_FRAMES, 0))
    assert against_truth(window(2), window(2)) == 0 and against_truth(still, window(2)) == 1
    assert against_truth(window(4), window(2)) == pytest.approx(1, abs=0.2)
    assert against_truth(window(-2), window(2)) == pytest.approx(2, abs=0.3)
    assert against_truth(patch((34, 50)), patch((10, 10))) == pytest.approx(2, abs=0.05)
    assert against_truth(window(2), still) is None


def test_flow_fidelity_does_not_see_the_place_and_the_layout_leak_does():
    here, there = patch((10, 10)), patch((34, 50))
    mirrored, back = (VideoFeatures(np.ascontiguousarray(f)) for f in (here.frames[:, :, ::-1], here.frames[::-1]))
    for made, fidelity, leak in ((here, 1, 1), (there, 1, 0), (mirrored, 0.5, 0), (back, 0.5, -0.7)):
        pair = Features(generated=made, reference=here)
        assert value("flow_fidelity", pair) == pytest.approx(fidelity, abs=0.05), "opposite directions share no bin"
        assert value("layout_leakage_flow", pair) == pytest.approx(leak, abs=0.05)
    wide = Features(generated=here, reference=window(1))
    assert "size" in METRICS["flow_fidelity"].skip_reason(wide) and value("layout_leakage_flow", wide) is None


def test_warping_error_forgives_movement_and_sees_what_does_not_follow_it():
    steady = value("warping_error", Features(generated=window(2)))
    blinking = window(2).frames // 2
    blinking[::2] += 40
    assert steady < 8 < value("warping_error", Features(generated=VideoFeatures(blinking)))
    noise = np.random.default_rng(0).integers(0, 256, (NUM_FRAMES, 64, 64, 3), np.uint8)
    assert value("warping_error", Features(generated=VideoFeatures(noise))) > 20

"""Retargeting: curves recovered from keypoints, and what of them the target then shows."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from benchmark.bounds.bounds import _pose_driver
from benchmark.bounds.retarget import RetargetConfig, _seen, _slopes, recover_curves, retarget, shown_curves
from benchmark.suites.case import Format
from benchmark.suites.puppets import load_case, load_suite
from benchmark.suites.truth import named_action, scenes, stage
from flexiact.media.video import frames_digest
from flexiact.pose.estimators import PoseEstimator
from flexiact.puppets.world.actions import curves
from flexiact.puppets.world.clip import FPS, NUM_FRAMES, SIZE
from flexiact.puppets.world.rigs import CHANNELS, KEYPOINTS, RIGS
from flexiact.puppets.world.scene import random_camera, random_scene
from tests.support.harness import CASES

NATIVE = Format(NUM_FRAMES, SIZE, SIZE, FPS)
SEEN = [("bow", "biped"), ("march", "saurian"), ("twist", "fish"), ("jump", "quadruped"), ("nod", "bird")]
QUICK = RetargetConfig(starts=1, rounds=0, evaluations=8)
each_action = pytest.mark.parametrize(("action", "rig"), SEEN)


@dataclass(frozen=True)
class Told:
    """Gives the keypoints that it was told, for the frames that it was told them of."""

    digest: str
    points: np.ndarray
    scores: np.ndarray
    name: str = "told"
    keypoint_names: tuple[str, ...] = KEYPOINTS
    score_threshold: float = 0.3

    def estimate(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert frames_digest(frames) == self.digest
        return self.points, self.scores


def figure(rig: str, seed: int = 3):
    generator = torch.Generator().manual_seed(seed)
    # Seen obliquely: from the front or in profile some channels move nothing that a picture shows.
    camera = replace(random_camera(generator), yaw_deg=45.0, pitch_deg=10.0)
    return random_scene(generator, "judge", rig, camera)


def true_points(scene, action: str, num_frames: int = NUM_FRAMES) -> np.ndarray:
    return _seen(scene, curves(named_action(action), num_frames)[None])[0].numpy()


def body_of(scene) -> list[int]:
    return list(RIGS[scene.rig].keypoints)


def apart_px(scene, first: torch.Tensor, second: torch.Tensor) -> float:
    """Mean distance of the body's keypoints on a frame of the puppets' size."""
    points = _seen(scene, torch.stack([first, second]))[:, :, body_of(scene)]
    return SIZE * float((points[0] - points[1]).norm(dim=-1).mean())


def told(staged, points: np.ndarray | None = None, scores: np.ndarray | None = None, **changes) -> Told:
    """An estimator that is right, but for what is changed."""
    scene = staged.reference_scene
    frames = staged.reference.frames
    margin = np.array([(frames.shape[2] - SIZE) // 2, (frames.shape[1] - SIZE) // 2])
    true = SIZE * true_points(scene, CASES[0].action, len(frames)) + margin
    exists = np.isin(np.arange(len(KEYPOINTS)), body_of(scene)).astype(np.float32)
    seen = np.tile(exists, (len(frames), 1)) if scores is None else scores
    return Told(frames_digest(frames), true if points is None else points, seen, **changes)


@pytest.fixture(scope="module")
def staged():
    return stage(CASES[0], NATIVE)


@pytest.mark.parametrize("rig", RIGS)
def test_slopes_are_differences(rig: str) -> None:
    scene = figure(rig)
    values = 0.5 * torch.randn(3, len(CHANNELS), generator=torch.Generator().manual_seed(1))
    slopes = _slopes(scene, values)
    for channel in range(len(CHANNELS)):
        step = torch.zeros(len(CHANNELS))
        step[channel] = 0.01
        both = _seen(scene, torch.stack([values + step, values - step]))
        assert torch.allclose(slopes[..., channel], (both[0] - both[1]) / 0.02, atol=2e-3), CHANNELS[channel]


@each_action
def test_true_keypoints_give_the_curves_back(action: str, rig: str) -> None:
    scene, true = figure(rig), curves(named_action(action), NUM_FRAMES)
    found = recover_curves(scene, true_points(scene, action), np.ones((NUM_FRAMES, len(KEYPOINTS))))
    have = [CHANNELS.index(name) for name in RIGS[rig].channels]
    assert found.shape == (NUM_FRAMES, len(CHANNELS))
    # Depth stays partly open in one view: what is certain is what the view shows.
    assert float((found - true)[:, have].square().mean().sqrt()) < 0.65 * float(true[:, have].square().mean().sqrt())
    assert apart_px(scene, found, true) < 0.3


@pytest.mark.parametrize(("action", "rig"), [("bow", "biped"), ("nod", "bird")])
def test_curves_are_exact_where_the_view_decides_and_keypoints_are_believed(action: str, rig: str) -> None:
    scene, true = figure(rig), curves(named_action(action), NUM_FRAMES)
    sure = RetargetConfig(noise_share=1 / 640)
    found = recover_curves(scene, true_points(scene, action), np.ones((NUM_FRAMES, len(KEYPOINTS))), sure)
    assert torch.allclose(found, true, atol=0.02)


@each_action
def test_estimated_keypoints_bound_the_error_on_another_body(action: str, rig: str) -> None:
    """Keypoints off by 1 px on each axis, as a good estimator's are, put the target's off by less than 1.5 px."""
    scene, true = figure(rig), curves(named_action(action), NUM_FRAMES)
    noise = np.random.default_rng(2).normal(scale=1 / SIZE, size=(NUM_FRAMES, len(KEYPOINTS), 2))
    found = recover_curves(scene, true_points(scene, action) + noise, np.ones((NUM_FRAMES, len(KEYPOINTS))))
    target = figure("quadruped", seed=8)
    seen = true * torch.tensor([name in RIGS[rig].channels for name in CHANNELS])
    assert apart_px(target, found, seen) < 1.5
    assert apart_px(target, found, seen) < 0.5 * apart_px(target, 0 * seen, seen)


def test_a_few_wild_points_do_little_harm() -> None:
    scene, true = figure("quadruped"), curves(named_action("jump"), NUM_FRAMES)
    points = true_points(scene, "jump")
    points[2, 5] += 0.4
    points[6, 0] -= 0.3
    found = recover_curves(scene, points, np.ones((NUM_FRAMES, len(KEYPOINTS))))
    assert apart_px(scene, found, true) < 1.0


def test_points_without_weight_are_not_read() -> None:
    scene, points = figure("biped"), true_points(figure("biped"), "bow")
    weights = np.ones((NUM_FRAMES, len(KEYPOINTS)))
    weights[3:5, 4] = 0
    wrong = points.copy()
    wrong[3:5, 4] = 17.0
    config = RetargetConfig(starts=1, rounds=0)
    assert torch.equal(recover_curves(scene, points, weights, config), recover_curves(scene, wrong, weights, config))


def test_what_the_body_lacks_stays_still_and_nothing_seen_means_no_movement() -> None:
    scene = figure("fish")
    weights = np.ones((NUM_FRAMES, len(KEYPOINTS)))
    found = recover_curves(scene, true_points(scene, "twist"), weights)
    lacking = [CHANNELS.index(name) for name in RIGS["fish"].missing]
    assert (found[:, lacking] == 0).all()
    assert found.abs().max() > 0.3
    unseen = recover_curves(scene, true_points(scene, "twist"), 0 * weights)
    assert unseen.abs().max() < 1e-3


def test_a_long_clip_has_as_many_unknowns_as_a_short_one() -> None:
    scene, true = figure("quadruped"), curves(named_action("bow"), 49)
    found = recover_curves(
        scene, true_points(scene, "bow", 49), np.ones((49, len(KEYPOINTS))), RetargetConfig(starts=1)
    )
    assert apart_px(scene, found, true) < 0.5


def test_the_target_does_what_the_reference_shows(staged) -> None:
    estimator = told(staged)
    assert isinstance(estimator, PoseEstimator)
    made = retarget(staged, estimator)
    assert made.frames.shape == staged.answer.frames.shape
    assert made.fps == staged.answer.fps

    def off(frames: np.ndarray) -> float:
        return float(np.abs(frames.astype(float) - staged.answer.frames).mean())

    assert off(made.frames) < 0.25 * off(staged.wrong.frames)
    assert off(made.frames) < 0.25 * off(np.repeat(staged.target[None], NUM_FRAMES, axis=0))


def test_the_action_is_read_from_the_reference_alone(staged) -> None:
    blind = replace(staged, truth=None, answer=None, wrong=None, source=None, target_keypoints=None)
    assert np.array_equal(retarget(blind, told(staged), QUICK).frames, retarget(staged, told(staged), QUICK).frames)


def test_an_estimator_may_order_its_points_as_it_likes_and_be_unsure(staged) -> None:
    right = told(staged)
    unsure = right.scores.copy()
    unsure[4, 3] = 0.29
    lost = right.points.copy()
    lost[4, 3] = 1000.0
    expected = retarget(staged, told(staged, scores=np.where(unsure < 0.3, 0, unsure)), QUICK)
    assert np.array_equal(retarget(staged, told(staged, lost, unsure), QUICK).frames, expected.frames)
    turned = told(
        staged, lost[:, ::-1], unsure[:, ::-1], keypoint_names=tuple(reversed(KEYPOINTS))
    )  # fmt: skip
    assert np.array_equal(retarget(staged, turned, QUICK).frames, expected.frames)


def test_an_estimator_that_lacks_a_keypoint_is_refused(staged) -> None:
    names = tuple("snout" if name == "nose" else name for name in KEYPOINTS)
    with pytest.raises(ValueError, match="keypoint_names: the estimator finds no nose"):
        retarget(staged, told(staged, keypoint_names=names))


def test_the_margins_of_a_wide_frame_change_nothing(staged) -> None:
    wide = stage(CASES[0], Format(NUM_FRAMES, SIZE, SIZE + 32, FPS))
    made = retarget(wide, told(wide), QUICK).frames[:, :, 16:-16]
    assert np.abs(made.astype(float) - retarget(staged, told(staged), QUICK).frames).mean() < 0.05


def test_the_shipped_estimator_shows_most_of_the_movement() -> None:
    """In pixels of held-out worlds: displacements of the answer's counted keypoints, cosine, over every sixth case."""
    suite, cosines = load_suite("puppets"), []
    for case_id in suite.case_ids[::6]:
        shown = stage(load_case(suite, case_id), NATIVE)
        made = SIZE * _seen(shown.target_scene, shown_curves(shown, _pose_driver())[None])[0].numpy()
        first, counted = shown.truth.first_scored_frame, shown.truth.counted
        still = shown.truth.target_keypoints[counted]
        found, true = (points[first:, counted] - still for points in (made, shown.truth.keypoints[0]))
        cosines.append((found * true).sum() / np.sqrt((found**2).sum() * (true**2).sum()))
    assert np.median(cosines) > 0.8


def test_scenes_of_a_stage_are_those_of_its_case(staged) -> None:
    assert (staged.reference_scene, staged.target_scene) == scenes(CASES[0])

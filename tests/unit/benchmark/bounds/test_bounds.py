"""Bounds and the truth that they and the metrics see."""

from dataclasses import replace

import numpy as np
import pytest

from benchmark.bounds.bounds import BOUNDS
from benchmark.stages.execute import format_of
from benchmark.suites.case import CaseError, Format
from benchmark.suites.truth import (
    bone_ends,
    counted_keypoints,
    first_scored_frame,
    first_settled_frame,
    named_action,
    scenes,
    stage,
)
from flexiact.puppets.world.actions import DEV_ACTIONS, Motion
from flexiact.puppets.world.captions import caption
from flexiact.puppets.world.clip import FPS, NUM_FRAMES, SIZE, render_clip
from flexiact.puppets.world.rigs import BONES, KEYPOINTS
from metrics import Features, VideoFeatures
from metrics.motion.motion_agreement import motion_agreement
from tests.support.harness import CASES

NATIVE = Format(NUM_FRAMES, SIZE, SIZE, FPS)


@pytest.fixture(scope="module")
def staged():
    return stage(CASES[0], NATIVE)


def features(staged, frames: np.ndarray, keypoints: np.ndarray) -> Features:
    """As a perfect pose estimator would see a video of known keypoints."""
    seen = VideoFeatures(frames, keypoints=keypoints, keypoint_scores=np.ones(keypoints.shape[:2], np.float32))
    target = staged.truth.target_keypoints[None]
    still = VideoFeatures(staged.target[None], keypoints=target, keypoint_scores=np.ones(target.shape[:2], np.float32))
    return Features(generated=seen, target=still, truth=staged.truth)


@pytest.mark.parametrize("name", BOUNDS)
def test_every_bound_is_a_video_of_the_backbone_and_deterministic(name: str, backbone) -> None:
    shown = stage(CASES[0], format_of(backbone))
    first, second = (BOUNDS[name].make(shown, backbone, 0) for _ in range(2))
    assert first.frames.shape == (backbone.num_frames, backbone.height, backbone.width, 3)
    assert first.fps == backbone.fps
    assert np.array_equal(first.frames, second.frames)
    other = BOUNDS[name].make(shown, backbone, 1)
    assert np.array_equal(first.frames, other.frames) != BOUNDS[name].sampled
    assert BOUNDS[name].summary
    assert BOUNDS[name].version >= 1


def test_still_repeats_the_target(staged, backbone) -> None:
    assert (BOUNDS["still"].make(staged, backbone, 0).frames == staged.target).all()


def test_in_words_is_told_the_action_that_the_prompt_leaves_out(staged) -> None:
    assert staged.in_words == caption(staged.target_scene, named_action(CASES[0].action), "full")


def test_oracle_is_the_canonical_answer_and_wrong_action_is_not(staged, backbone) -> None:
    oracle, wrong = (BOUNDS[name].make(staged, backbone, 0) for name in ("oracle", "wrong-action"))
    assert np.array_equal(oracle.frames, staged.truth.frames)
    assert not np.array_equal(oracle.frames, wrong.frames)


def test_the_truth_agrees_with_itself_and_a_still_video_with_nothing(staged) -> None:
    true = staged.truth
    assert motion_agreement(features(staged, true.frames, true.keypoints[0])) == pytest.approx(1)
    still = np.repeat(true.target_keypoints[None], NUM_FRAMES, axis=0)
    assert motion_agreement(features(staged, staged.answer.frames, still)) == 0


def test_what_is_counted_moves_noticeably(staged) -> None:
    true = staged.truth
    assert true.counted.any()
    moved = np.linalg.norm(true.keypoints[0] - true.target_keypoints, axis=-1)[true.first_scored_frame :]
    assert (moved[:, true.counted].max(axis=0) >= 2.0).all()
    assert true.body_size_px == pytest.approx(SIZE * CASES[0].target["camera"]["scale"])


def test_a_keypoint_counts_when_any_answer_moves_it() -> None:
    still = np.zeros((3, 2))
    answers = np.zeros((2, 4, 3, 2))
    answers[0, 2, 0] = (64 * 2 / 64, 0)
    answers[1, 3, 1] = (0, 5)
    assert counted_keypoints(answers, still, 64).tolist() == [True, True, False]
    assert counted_keypoints(answers, still, 128).tolist() == [False, True, False]


@pytest.mark.parametrize(("frames", "first"), [(1, 0), (5, 1), (9, 2), (17, 4), (49, 12)])
def test_the_first_quarter_is_not_judged(frames: int, first: int) -> None:
    assert first_scored_frame(frames) == first


@pytest.mark.parametrize(("frames", "first"), [(1, 0), (5, 2), (9, 4), (17, 8), (49, 24)])
def test_the_longest_blend_has_arrived_after_half(frames: int, first: int) -> None:
    assert first_settled_frame(frames) == first


def test_bones_join_neighbouring_keypoints() -> None:
    pairs = {bone: (KEYPOINTS[a], KEYPOINTS[b]) for bone, (a, b) in zip(BONES, bone_ends().tolist(), strict=True)}
    assert pairs["trunk"] == ("pelvis", "chest")
    assert pairs["head"] == ("chest", "nose")
    assert pairs["fore_left_upper"] == ("chest", "fore_left_mid")
    assert pairs["hind_right_lower"] == ("hind_right_mid", "hind_right_tip")
    assert pairs["tail_end"] == ("tail_mid", "tail_tip")


def test_a_wide_frame_keeps_the_figure_whole_and_its_keypoints_on_it(staged) -> None:
    wide = stage(CASES[0], Format(NUM_FRAMES, SIZE, SIZE + 32, FPS))
    assert np.array_equal(wide.answer.frames[:, :, 16:-16], staged.answer.frames)
    assert np.allclose(wide.truth.keypoints, staged.truth.keypoints + [16, 0])
    assert (wide.truth.parts[:, :, :16] == -1).all()
    assert np.array_equal(wide.truth.parts[:, :, 16:-16], staged.truth.parts)


def test_reference_and_target_show_their_own_scenes(staged) -> None:
    reference, target = scenes(CASES[0])
    action = named_action(CASES[0].action)
    assert np.array_equal(staged.reference.frames, render_clip(reference, action).video.frames)
    assert np.array_equal(staged.target, render_clip(target, (), 1).video.frames[0])


def test_keypoints_that_the_body_lacks_are_not_counted() -> None:
    biped = replace(CASES[0], target=CASES[0].reference, action="turn")
    counted = stage(biped, NATIVE).truth.counted
    assert counted.any()
    assert not counted[[KEYPOINTS.index("tail_mid"), KEYPOINTS.index("tail_tip")]].any()


def test_an_unknown_action_is_refused() -> None:
    with pytest.raises(CaseError, match="action: unknown 'moonwalk'"):
        stage(replace(CASES[0], action="moonwalk"), NATIVE)


def test_an_action_that_moves_nothing_on_the_target_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEV_ACTIONS, "wag only", (Motion("tail_yaw", "swing", 1.0),))
    with pytest.raises(CaseError, match="'wag only' moves nothing on this target"):
        stage(replace(CASES[0], target=CASES[0].reference, action="wag only"), NATIVE)

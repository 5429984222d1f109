"""Targets that are not in a neutral stance: the pose axis, the right answers, and the bounds made for it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmark.bounds.bounds import BOUNDS
from benchmark.suites.candidates import candidates
from benchmark.suites.case import Format
from benchmark.suites.truth import Staged, first_settled_frame, named_action, scenes, stage
from flexiact.puppets.world.actions import DEV_ACTIONS, PuppetAction, blended, curves, random_large_action
from flexiact.puppets.world.answers import BLEND_SHARES, arrived, relative
from flexiact.puppets.world.clip import FPS, NEUTRAL_POSE, NUM_FRAMES, SIZE, projections
from flexiact.puppets.world.rigs import CHANNELS, RIGS
from metrics import METRICS, Features, VideoFeatures
from tests.support.harness import CASES
from tests.support.pose_distance import pose_distance

NATIVE = Format(NUM_FRAMES, SIZE, SIZE, FPS)
SETTLED = first_settled_frame(NUM_FRAMES)


def some_pose(seed: int) -> tuple[float, ...]:
    """A moment of a random large action."""
    action = random_large_action(torch.Generator().manual_seed(seed))
    return tuple(curves(action, NUM_FRAMES)[3].tolist())


@pytest.fixture(scope="module", params=[(0, 0), (1, 1), (0, 2)], ids=str)
def posed(request) -> Staged:
    case, seed = request.param
    return stage(replace(CASES[case], target_pose=some_pose(seed)), NATIVE)


def value(name: str, staged: Staged, values: torch.Tensor) -> float:
    """A metric of the target going through channel values [T, 21], with its true keypoints."""
    points = projections([staged.target_scene], values[None]).keypoints().numpy()
    sure = np.ones(points.shape[:2], np.float32)
    target = VideoFeatures(staged.target[None], keypoints=staged.truth.target_keypoints[None], keypoint_scores=sure[:1])
    made = VideoFeatures(staged.answer.frames, keypoints=points, keypoint_scores=sure)
    return METRICS[name].compute(Features(made, target, truth=staged.truth, candidates=staged.candidates))


def oracles(staged: Staged) -> list[torch.Tensor]:
    return [blended(staged.target_pose, staged.answer_values, share) for share in BLEND_SHARES]


# ---------------------------------------------------------------------------------------------------------- the blends


@pytest.mark.parametrize("num_frames", [5, 9, 17, 49])
@pytest.mark.parametrize("share", BLEND_SHARES)
def test_a_blend_leaves_the_pose_and_is_the_action_after_its_share(num_frames: int, share: float) -> None:
    pose, action = torch.tensor(some_pose(0)), curves(DEV_ACTIONS["row"], num_frames)
    values = blended(pose, action, share)
    after = round((num_frames - 1) * share)
    assert torch.equal(values[after:], action[after:])
    if share:
        assert torch.equal(values[0], pose)
        weight = blended(torch.zeros(21), torch.ones(num_frames, 21), share)[: after + 1, 0]
        assert weight + weight.flip(0) == pytest.approx(np.ones(after + 1))  # a smoothstep is even about its middle
        assert (weight.diff() > 0).all()


def test_arrived_stands_still_where_the_action_begins_and_relative_begins_in_the_pose() -> None:
    pose, action = torch.tensor(some_pose(0)), curves(DEV_ACTIONS["drop"], NUM_FRAMES)
    assert torch.equal(arrived(pose, action)[0], pose)
    assert torch.equal(arrived(pose, action)[SETTLED:], action[:1].expand(NUM_FRAMES - SETTLED, -1))
    assert torch.equal(relative(pose, action)[0], pose)
    assert torch.allclose(relative(pose, action).diff(dim=0), action.diff(dim=0), atol=1e-6)


# ------------------------------------------------------------------------------------------------------------ the axis


def test_pose_distance_is_zero_where_the_answer_begins_and_grows_with_the_pose() -> None:
    _, target = scenes(CASES[0])
    action = named_action("drop")
    start = curves(action, NUM_FRAMES)[0]
    far = [pose_distance(target, action, tuple((scale * start).tolist())) for scale in (1.0, 1.5, 2.0, 0.0)]
    assert far[0] == 0 < far[1] < far[2]
    assert far[3] == pose_distance(target, action)


def test_pose_distance_is_in_body_sizes_wherever_the_body_stands_and_however_large() -> None:
    _, target = scenes(CASES[0])
    camera = target.camera
    smaller = replace(target, camera=replace(camera, scale=camera.scale / 2, x=0.1, y=-0.1))
    action, pose = named_action("lean"), some_pose(1)
    distance = pose_distance(target, action, pose)
    assert distance > 0.05
    assert pose_distance(smaller, action, pose) == pytest.approx(distance, abs=2e-4)


def test_pose_distance_of_a_hop_is_its_height_on_the_picture() -> None:
    _, target = scenes(CASES[0])
    pose = tuple(0.8 * (channel == "hop") for channel in CHANNELS)
    values = torch.tensor([NEUTRAL_POSE, pose])[None]
    low, high = projections([target], values).keypoints()
    nose = float((low - high)[0].norm()) / (target.camera.scale * SIZE)
    assert pose_distance(target, (), pose) == pytest.approx(nose, rel=0.1)


# ------------------------------------------------------------------------------------------------------ right answers


def test_every_blend_is_right(posed: Staged) -> None:
    assert len(posed.truth.keypoints) % len(BLEND_SHARES) == 0
    for name in ("motion_agreement", "motion_agreement_centred"):
        values = [value(name, posed, oracle) for oracle in oracles(posed)]
        assert values == pytest.approx([1] * len(BLEND_SHARES), abs=0.02)
    assert [value("pck", posed, oracle) for oracle in oracles(posed)] == [1] * len(BLEND_SHARES)
    assert [value("arrival", posed, oracle) for oracle in oracles(posed)] == pytest.approx([0] * 3, abs=1e-5)
    assert [value("action_retrieval", posed, oracle) for oracle in oracles(posed)] == [1] * len(BLEND_SHARES)


def test_the_canonical_answer_begins_in_the_action(posed: Staged) -> None:
    points = projections([posed.target_scene], posed.answer_values[None]).keypoints().numpy()
    assert np.allclose(posed.truth.keypoints[0], points, atol=1e-4)
    assert value("jump", posed, posed.answer_values) == pytest.approx(1)


def test_going_to_the_start_and_freezing_earns_nothing(posed: Staged) -> None:
    frozen = arrived(posed.target_pose, posed.answer_values)
    assert value("motion_agreement_centred", posed, frozen) == pytest.approx(0, abs=0.05)
    assert value("action_retrieval", posed, frozen) == 0


def test_neither_does_standing_still(posed: Staged) -> None:
    still = posed.target_pose.expand(NUM_FRAMES, -1)
    assert value("motion_agreement_centred", posed, still) == 0
    assert value("arrival", posed, still) == pytest.approx(1)


def test_adding_the_actions_changes_to_the_pose_does_not_arrive(posed: Staged) -> None:
    added = relative(posed.target_pose, posed.answer_values)
    assert value("arrival", posed, added) > 0.1
    assert value("motion_agreement", posed, added) < 1


def test_the_wrong_action_is_not_retrieved(posed: Staged) -> None:
    wrong = curves(named_action(CASES[0].wrong_action), NUM_FRAMES)
    assert value("action_retrieval", posed, wrong) == 0


# -------------------------------------------------------------------------------------------------------------- bounds


def test_bounds_begin_and_end_where_they_say(posed: Staged, backbone) -> None:
    made = {name: BOUNDS[name].make(posed, backbone, 0).frames for name in BOUNDS if BOUNDS[name].sees == "the truth"}
    for name in ("arrive-and-freeze", "relative", "oracle-blend-2", "oracle-blend-4"):
        assert np.array_equal(made[name][0], posed.target), name
    assert not np.array_equal(made["oracle"][0], posed.target)
    assert np.array_equal(made["oracle-blend-2"][2:], made["oracle"][2:])
    assert np.array_equal(made["oracle-blend-4"][4:], made["oracle"][4:])
    assert not np.array_equal(made["oracle-blend-4"][3], made["oracle"][3])
    assert (made["arrive-and-freeze"][4:] == made["oracle"][0]).all()


# ---------------------------------------------------------------------------------------------------------- candidates


def test_candidates_are_the_right_answers_and_the_other_actions_that_can_be_seen(posed: Staged) -> None:
    found, body = posed.candidates, RIGS[posed.target_scene.rig]
    exists = np.isin(np.arange(found.keypoints.shape[2]), body.keypoints)
    assert np.isnan(found.keypoints[:, :, ~exists]).all()
    assert np.isfinite(found.keypoints[:, :, exists]).all()
    assert 4 <= len(found.keypoints) <= len(DEV_ACTIONS) + 2
    assert 1 <= found.right.sum() < len(found.right)


def test_a_candidate_that_looks_like_the_right_one_is_right_too(monkeypatch: pytest.MonkeyPatch) -> None:
    _, target = scenes(CASES[0])

    def made(action: PuppetAction) -> np.ndarray:
        monkeypatch.setitem(DEV_ACTIONS, "twin", action)
        found = candidates(target, "lean", [named_action("lean")], NUM_FRAMES, SETTLED, SIZE)
        return found.right

    assert made(tuple(replace(m, amplitude=1.02 * m.amplitude) for m in named_action("lean"))).sum() == 2
    assert made(tuple(replace(m, amplitude=-m.amplitude) for m in named_action("lean"))).sum() == 1

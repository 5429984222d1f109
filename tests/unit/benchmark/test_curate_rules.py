"""The rules that cases are chosen by, on points that are laid out by hand and on a few scenes."""

import numpy as np
import pytest
import torch

from benchmark.curate.poses import MIN_FROM_NAMED, any_poses, from_named, in_band, moments, of_body, posed, usable
from benchmark.curate.rules import (
    Chosen,
    Target,
    body_sizes,
    fitting_rigs,
    generator_of,
    keypoints,
    movement,
    would_do,
    wrong_action,
)
from flexiact.puppets.world.actions import DEV_ACTIONS, TEST_ACTIONS, curves
from flexiact.puppets.world.answers import answers
from flexiact.puppets.world.clip import NEUTRAL_POSE, NUM_FRAMES
from flexiact.puppets.world.rigs import CHANNELS, HELD_OUT_RIG, RIGS
from flexiact.puppets.world.scene import random_scene
from tests.support.pose_distance import pose_distance

SCENE = random_scene(generator_of("a reference"), "dev", "biped")
TARGETS = [random_scene(generator_of("a target", number), "dev") for number in range(12)]
ROW = Chosen("row", "dev", SCENE)


def test_movement_is_of_the_keypoints_that_leave_the_image() -> None:
    image = np.zeros((3, 2))
    points = np.zeros((NUM_FRAMES, 3, 2))
    points[2:, 0] = (3, 4)  # far, then still
    points[:, 1] = (1, 0)  # too near to be judged
    points[:, 2] = np.nan
    image[2] = np.nan
    assert movement(points, image) == (5, 0, 1)
    points[5:, 0] = (3, -4)  # settled frames 4 to 8: one up, four down
    assert movement(points, image)[1] == pytest.approx(3.2)
    assert movement(np.zeros((NUM_FRAMES, 3, 2)), image) == (0, 0, 0)


@pytest.mark.parametrize("target", TARGETS[:4])
def test_poses_are_measured_as_the_world_measures_them(target) -> None:
    answer = answers(SCENE, target, DEV_ACTIONS["row"]).actions[0]
    start = keypoints([target], curves(answer, 1)[None])[0, 0]
    for shown in any_poses(target, 3, generator_of("poses")):
        image = keypoints([target], torch.tensor([[shown.pose]]))[0, 0]
        assert body_sizes(target, image, start) == pytest.approx(pose_distance(target, answer, shown.pose), abs=2e-4)


def test_targets_in_a_batch_are_judged_as_alone() -> None:
    drawn = [Target(scene) for scene in TARGETS]
    together = would_do(ROW, drawn)
    assert 0 < len(together) < len(drawn)
    alone = [found for target in drawn for found in would_do(ROW, [target])]
    assert [c.target for c in together] == [c.target for c in alone]
    assert [c.axes for c in together] == [c.axes for c in alone]


def test_a_target_that_starts_as_its_answer_does_is_at_no_distance() -> None:
    found = would_do(ROW, [ROW.starting(scene) for scene in TARGETS])
    assert found
    assert {candidate.axes["pose"] for candidate in found} == {0.0}


def test_the_wrong_action_shares_as_few_channels_as_can_be() -> None:
    (target, *_) = would_do(ROW, [Target(scene) for scene in TARGETS if scene.rig == "biped"])
    other = DEV_ACTIONS[wrong_action(ROW, target.target)]
    assert not {motion.channel for motion in other} & {motion.channel for motion in ROW.action}


def test_bodies_that_fit_have_most_channels_and_occur_in_the_split() -> None:
    assert "fish" not in fitting_rigs(TEST_ACTIONS["gallop"], "test")
    assert HELD_OUT_RIG in fitting_rigs(TEST_ACTIONS["gallop"], "test")
    assert HELD_OUT_RIG not in fitting_rigs(TEST_ACTIONS["gallop"], "dev")


@pytest.mark.parametrize("rig", RIGS)
def test_moments_stay_away_from_named_actions_and_use_the_bodys_channels(rig: str) -> None:
    poses = of_body(rig)[usable(rig)]
    assert len(poses) > 500
    assert (poses.norm(dim=1) >= MIN_FROM_NAMED).all()
    lacking = [CHANNELS.index(channel) for channel in set(CHANNELS) - set(RIGS[rig].channels)]
    assert (poses[:, lacking] == 0).all()
    begun = curves(TEST_ACTIONS["star"], NUM_FRAMES)[3:4]
    assert float(from_named(begun, rig)) == pytest.approx(0, abs=1e-3)


def test_poses_in_a_band_are_that_far() -> None:
    scene, band = TARGETS[0], (0.1, 0.15)
    indices = in_band(ROW, scene, band).nonzero().flatten().tolist()
    answer = ROW.right(scene).actions[0]
    assert 0 < len(indices) < len(moments())
    for index in indices[:5]:
        assert band[0] - 2e-4 <= pose_distance(scene, answer, posed(scene, index).pose) <= band[1] + 2e-4


def test_any_poses_begin_with_the_neutral_one() -> None:
    neutral, *others = any_poses(SCENE, 4, generator_of("poses"))
    assert neutral.pose == NEUTRAL_POSE
    assert len({other.pose for other in others}) == 4

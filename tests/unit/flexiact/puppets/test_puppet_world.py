"""The puppet world: deterministic, free of leakage, and its truth agrees with its pictures."""

import functools
import itertools
import json
import math
import operator
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flexiact.puppets.recipes.backbone.model import MAX_TEXT_TOKENS
from flexiact.puppets.recipes.courses import random_course
from flexiact.puppets.world.actions import (
    DEV_ACTIONS,
    MIN_DISTANCE_TO_TEST,
    SHAPES,
    TEST_ACTIONS,
    Motion,
    action_distance,
    blended,
    curves,
    distance_to_named,
    is_large,
    nearest_named,
    random_action,
    random_large_action,
    restricted,
)
from flexiact.puppets.world.answers import _mirrored, answers, axes
from flexiact.puppets.world.captions import LEVELS, PARAPHRASES, caption, vocabulary
from flexiact.puppets.world.clip import NUM_FRAMES, SIZE, render_clip, render_clips, target_clip
from flexiact.puppets.world.render import Projection, draw, project
from flexiact.puppets.world.rigs import (
    BONES,
    CHANNELS,
    HELD_OUT_RIG,
    KEYPOINT_BONES,
    KEYPOINTS,
    RIGS,
    TRAINING_RIGS,
    pose,
)
from flexiact.puppets.world.scene import (
    Camera,
    backdrop_split,
    random_scene,
    scene_from_dict,
    scene_to_dict,
    skin_split,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(rig: str = "quadruped", seed: int = 0, split: str = "test"):
    return random_scene(generator(seed), split, rig)


def test_tables_of_names_agree():
    assert len(CHANNELS) == 21 == len(set(CHANNELS))
    assert len(BONES) == 12
    assert len(KEYPOINTS) == len(KEYPOINT_BONES) == 13
    assert HELD_OUT_RIG in RIGS and HELD_OUT_RIG not in TRAINING_RIGS
    assert len(TEST_ACTIONS) == 41


@pytest.mark.parametrize("rig", RIGS)
def test_the_neutral_figure_spans_one_unit_about_the_origin(rig):
    bones, radii = pose([rig], torch.ones(1, 9), torch.zeros(1, 1, 21))
    low = (bones - radii[:, None, ..., None]).amin((0, 1, 2, 3))
    high = (bones + radii[:, None, ..., None]).amax((0, 1, 2, 3))
    assert torch.allclose((high - low).max(), torch.tensor(1.0), atol=1e-5)
    assert torch.allclose((high + low) / 2, torch.zeros(3), atol=1e-5)


@pytest.mark.parametrize("rig", RIGS)
def test_the_channels_that_move_a_body_are_those_that_exist_there(rig):
    values = torch.cat([torch.zeros(1, 21), torch.eye(21)])[None]  # at rest, then one channel a frame
    bones, _ = pose([rig], torch.ones(1, 9), values)
    moved = (bones[0, 1:] - bones[0, :1]).abs().amax((1, 2, 3))
    assert {channel for channel, by in zip(CHANNELS, moved, strict=True) if by > 0.02} == set(RIGS[rig].channels)


@pytest.mark.parametrize("rig", RIGS)
def test_movement_keeps_bone_lengths(rig):
    values = torch.randn(1, 5, 21, generator=generator())
    bones, _ = pose([rig], torch.ones(1, 9), values)
    lengths = (bones[..., 1, :] - bones[..., 0, :]).norm(dim=-1)
    assert torch.allclose(lengths, lengths[:, :1].expand_as(lengths), atol=1e-5)


def test_forward_swing_of_the_left_foreleg_is_forward_and_alone():
    values = torch.zeros(1, 2, 21)
    values[0, 1, CHANNELS.index("fore_left_swing")] = 1.0
    bones, _ = pose(["quadruped"], torch.ones(1, 9), values)
    tips = bones[0, :, [BONES.index(f"fore_{side}_lower") for side in ("left", "right")], 1]
    assert tips[1, 0, 0] > tips[0, 0, 0] + 0.1
    assert torch.equal(tips[1, 1], tips[0, 1])


def test_rendering_is_deterministic_and_independent_of_the_batch():
    scenes = [scene("bird"), scene("fish", 1), scene("biped", 2)]
    actions = [TEST_ACTIONS["flap"], TEST_ACTIONS["dive"], TEST_ACTIONS["wave"]]
    together = render_clips(scenes, actions)
    for clip, one_scene, action in zip(together, scenes, actions, strict=True):
        alone = render_clip(one_scene, action)
        assert clip.video.frames.shape == (NUM_FRAMES, SIZE, SIZE, 3)
        # Batched arithmetic may round differently: at most one grey level.
        assert np.abs(alone.video.frames.astype(int) - clip.video.frames).max() <= 1
        np.testing.assert_allclose(alone.keypoints, clip.keypoints, atol=1e-3)
        again = render_clip(one_scene, action)
        assert np.array_equal(alone.video.frames, again.video.frames)


@pytest.mark.parametrize("rig", RIGS)
def test_trunk_keypoints_lie_on_the_figure(rig):
    one = scene(rig, 3)
    clip = render_clip(one, TEST_ACTIONS["bow"])
    centre = clip.keypoints[:, [KEYPOINTS.index("chest"), KEYPOINTS.index("pelvis")]].mean(1)
    for parts, (x, y) in zip(clip.parts, centre, strict=True):
        assert parts[int(y), int(x)] >= 0
    assert clip.keypoint_exists.sum() == len(RIGS[rig].keypoints)
    assert set(np.unique(clip.parts)) - {-1} <= set(RIGS[rig].bones)


def test_the_target_image_does_not_depend_on_an_action():
    image = target_clip(scene("biped"))
    assert image.video.frames.shape[0] == 1
    assert np.array_equal(image.video.frames[0], render_clip(scene("biped"), ()).video.frames[0])


@given(st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_training_never_meets_what_is_held_out(seed):
    g = generator(seed)
    one = random_scene(g, "train")
    assert one.rig != HELD_OUT_RIG
    for split in ("train", "dev", "test"):
        drawn = random_scene(g, split)
        assert skin_split(drawn.skin) == backdrop_split(drawn.backdrop) == split
    named = [*TEST_ACTIONS.values(), *DEV_ACTIONS.values()]
    for action in (random_action(g), random_large_action(g, RIGS[one.rig].channels)):
        nearest = min(action_distance(action, other) for other in named)
        assert nearest >= MIN_DISTANCE_TO_TEST
        assert nearest == pytest.approx(distance_to_named(action), abs=1e-5)
    _, values = random_course(g, one.rig)
    assert nearest_named(values) >= MIN_DISTANCE_TO_TEST


@given(st.integers(0, 2**31), st.sampled_from(sorted(RIGS)))
@settings(max_examples=40, deadline=None)
def test_large_actions_are_whole_movements_of_channels_that_the_body_has(seed, rig):
    action = random_large_action(generator(seed), RIGS[rig].channels)
    assert is_large(action)
    assert {motion.channel for motion in action} <= set(RIGS[rig].channels)
    for motion in action:
        if "_left_" in motion.channel:
            twin = replace(motion, channel=motion.channel.replace("_left_", "_right_"))
            assert twin in action
            assert not is_large(tuple(m for m in action if m != twin))


def test_there_are_24_large_test_actions_far_apart_and_12_for_development():
    test, dev = ({n: a for n, a in pool.items() if is_large(a)} for pool in (TEST_ACTIONS, DEV_ACTIONS))
    assert {"jump", "squat", "stretch", "flap", "bounce", "rear", "dive", "star"} < set(test)
    assert len(test) == 24 and len(dev) == 12
    assert min(action_distance(a, b) for a, b in itertools.combinations((test | dev).values(), 2)) >= 0.5


def test_a_blend_begins_in_the_pose_and_is_the_action_after_its_length():
    values, start = curves(TEST_ACTIONS["gallop"], NUM_FRAMES), torch.linspace(-1, 1, 21)
    assert torch.equal(blended(start, values, 0), values)
    way = blended(start, values, 0.5)
    assert torch.equal(way[0], start) and torch.equal(way[4:], values[4:])
    assert torch.allclose(way[2], (start + values[2]) / 2)


def test_development_and_test_actions_are_apart():
    for a, b in itertools.product(TEST_ACTIONS.values(), DEV_ACTIONS.values()):
        assert action_distance(a, b) > 0.4


def test_distance_is_zero_on_itself_and_symmetric():
    a, b = TEST_ACTIONS["wave"], TEST_ACTIONS["bow"]
    assert action_distance(a, a) == 0
    assert action_distance(a, b) == pytest.approx(action_distance(b, a))


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_stay_within_one(shape):
    values = SHAPES[shape](torch.linspace(0, 1, 33))
    assert float(values.abs().max()) <= 1 + 1e-6


def test_curves_add_up_on_one_channel():
    both = (Motion("hop", "rise", 0.5), Motion("hop", "hold", 0.25))
    values = curves(both, 3)[:, CHANNELS.index("hop")]
    assert values.tolist() == pytest.approx([0.25, 0.5, 0.75])


@given(st.integers(0, 2**31), st.sampled_from(LEVELS), st.integers(0, PARAPHRASES - 1))
@settings(max_examples=40, deadline=None)
def test_captions_use_the_vocabulary_and_fit_the_text_length(seed, level, paraphrase):
    g = generator(seed)
    words = caption(random_scene(g, "judge"), random_action(g), level, paraphrase).replace(",", " ").split()
    assert set(words) <= set(vocabulary())
    assert len(words) < MAX_TEXT_TOKENS


def test_captions_of_named_actions_fit_the_text_length():
    told = {name: caption(scene("quadruped"), action, "full") for name, action in (TEST_ACTIONS | DEV_ACTIONS).items()}
    assert [name for name, text in told.items() if len(text.replace(",", " ").split()) >= MAX_TEXT_TOKENS] == []


def test_a_caption_says_who_where_what_how_much_and_in_which_course():
    one = scene("biped")
    who = caption(one, (), "subject")
    up, down = Motion("hop", "hold", 1.4), Motion("hop", "hold", -0.6)
    assert caption(one, (up,), "full") == f"{who}, body hops hold fully full full full full full"
    assert caption(one, (down,), "full") == f"{who}, body sinks hold slightly full full full full full"
    nod = Motion("head_pitch", "rise", 0.9)
    assert caption(one, (nod,), "full") == f"{who}, head nods rise clearly none none half full full"
    assert caption(one, (nod, up), "coarse") == f"{who}, moving head, body"


def test_the_subject_level_says_nothing_of_the_action():
    one = scene("biped")
    assert caption(one, TEST_ACTIONS["wave"], "subject") == caption(one, TEST_ACTIONS["bow"], "subject")
    with pytest.raises(ValueError, match="level"):
        caption(one, (), "everything")
    with pytest.raises(ValueError, match="paraphrase"):
        caption(one, (), "full", PARAPHRASES)


def test_paraphrases_tell_the_course_by_a_word_by_its_stages_or_both():
    full, named, staged = (caption(scene("biped"), (Motion("hop", "beat", -1.1),), "full", p) for p in range(3))
    assert full.endswith("body sinks beat strongly none full none full none")
    assert named.endswith("body sinks beat strongly")
    assert staged.endswith("body sinks strongly none full none full none")


def test_scenes_survive_a_round_trip_and_refuse_damage():
    one = scene("saurian")
    assert scene_from_dict(scene_to_dict(one)) == one
    for change in ({"rig": "centaur"}, {"proportions": (1.0,)}, {"camera": {}}):
        with pytest.raises(ValueError):
            scene_from_dict(scene_to_dict(one) | change)


def _nested(depth: int) -> list:
    return [] if depth == 0 else [_nested(depth - 1)]


@pytest.mark.parametrize(
    "place",
    [
        *("rig", "proportions.0", "stance.20", "skin.primary", "skin.secondary", "skin.pattern", "skin.frequency"),
        *("camera.yaw_deg", "camera.x", "backdrop.top.0", "backdrop.blob_colour.2"),
    ],
)
def test_a_scene_with_a_value_of_another_type_is_refused_in_one_line(place: str) -> None:
    for odd in (None, [1], {"a": 1}, math.nan, math.inf, _nested(100), "\n"):
        made = json.loads(json.dumps(scene_to_dict(scene("saurian"))))
        *path, last = [int(name) if name.isdecimal() else name for name in place.split(".")]
        functools.reduce(operator.getitem, path, made)[last] = odd
        with pytest.raises(ValueError, match=r"\A(scene|rig|skin): .+\Z"):
            scene_from_dict(made)


def test_unknown_splits_rigs_and_channels_are_refused():
    with pytest.raises(ValueError, match="split"):
        random_scene(generator(), "validation")
    with pytest.raises(ValueError, match="rig"):
        random_scene(generator(), "train", HELD_OUT_RIG)
    with pytest.raises(ValueError, match="channel"):
        Motion("nose_wiggle", "rise", 1.0)
    with pytest.raises(ValueError, match="shape"):
        Motion("hop", "square", 1.0)


def test_axes_are_zero_for_the_same_scene_and_grow_with_difference():
    a, b = scene("biped"), scene("fish", 5)
    assert axes(a, a) == {"layout": 0.0, "viewpoint": 0.0, "skeleton": 0.0}
    apart = axes(a, b)
    assert all(value > 0 for value in apart.values())
    assert apart == pytest.approx(axes(b, a))


def test_a_camera_above_sees_what_is_near_lower_and_larger():
    ends = torch.zeros(1, 1, len(BONES), 2, 3)
    ends[..., 0, 0], ends[..., 1, 0] = 0.5, -0.5  # from the near to the far side of the floor, seen from the front
    seen = project(ends, torch.full((1, len(BONES), 2), 0.1), [Camera(0.0, 20.0, 0.8, 0.0, 0.0)], SIZE)
    (near_x, near_y), (far_x, far_y) = seen.ends[0, 0].tolist()
    assert near_y > SIZE / 2 > far_y and near_x == pytest.approx(far_x) == pytest.approx(SIZE / 2)
    assert seen.radii[0, 0, 0] > seen.radii[0, 0, 1]


def test_what_is_near_covers_what_is_far():
    across = torch.tensor([[SIZE / 4, SIZE / 2], [3 * SIZE / 4, SIZE / 2]])
    visible = torch.tensor([[name in ("trunk", "head") for name in BONES]])
    for near in ("trunk", "head"):
        depth = torch.tensor([[float(name == near) for name in BONES]])
        seen = Projection(across.expand(1, len(BONES), 2, 2), torch.full((1, len(BONES), 2), 4.0), depth)
        _, parts = draw(seen, [scene("biped")], visible, SIZE)
        assert BONES[parts[0, SIZE // 2, SIZE // 2]] == near


@pytest.mark.parametrize("rig", RIGS)
def test_a_mirrored_action_is_the_action_in_a_mirror(rig):
    action = random_action(generator(3)) + (Motion("trunk_yaw", "rise", 0.7), Motion("head_yaw", "fall", -0.8))
    values = torch.stack([curves(action, NUM_FRAMES), curves(_mirrored(action), NUM_FRAMES)])
    bones, _ = pose([rig, rig], torch.ones(2, 9), values)
    sides = {"left": "right", "right": "left"}
    other = ["_".join(sides.get(word, word) for word in name.split("_")) for name in BONES]
    mirror = bones[0][:, [BONES.index(name) for name in other]] * torch.tensor([1.0, 1.0, -1.0])
    assert torch.allclose(bones[1], mirror, atol=1e-5)


def test_answers_leave_out_what_the_target_lacks():
    action = TEST_ACTIONS["jump"]
    right = answers(scene("biped"), scene("fish", 2), action)
    assert all(m.channel in RIGS["fish"].channels for a in right.actions for m in a)
    assert 0 < right.left_out_share < 1
    assert restricted(action, ("hop",)) == (action[0],)


def test_answers_hold_the_action_itself_when_bodies_agree():
    one = scene("quadruped", 4)
    right = answers(one, one, TEST_ACTIONS["rear"])
    assert right.actions[0] == TEST_ACTIONS["rear"]
    assert right.left_out_share == 0
    assert len(right.actions) == 1  # mirroring a symmetric action changes nothing

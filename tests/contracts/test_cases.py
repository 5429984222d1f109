"""What every case and suite that ships promises. A failing test names the cases that break the promise."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch

from benchmark.curate.files import write_suite
from benchmark.curate.poses import MIN_FROM_NAMED, from_named
from benchmark.curate.recipes import RECIPES, curate
from benchmark.curate.rules import MAX_LEFT_OUT_SHARE, MIN_MOVEMENT_PX, Chosen, Target, keypoints, movement, would_do
from benchmark.suites.puppets import AXES, CASES_FOLDER, TERCILES, PuppetCase, load_case, load_suite, suite_names
from benchmark.suites.truth import named_action, scenes, specification_digests, target_pose
from flexiact.puppets.world.actions import DEV_ACTIONS, TEST_ACTIONS, curves, is_large
from flexiact.puppets.world.answers import answers, axes
from flexiact.puppets.world.captions import caption
from flexiact.puppets.world.clip import NEUTRAL_POSE, NUM_FRAMES
from flexiact.puppets.world.rigs import HELD_OUT_RIG, RIGS
from flexiact.puppets.world.scene import backdrop_split, skin_split
from metrics import METRICS
from tests.support.pose_distance import pose_distance

SUITES = {name: load_suite(name) for name in suite_names()}
CASES = {name: [load_case(suite, case_id) for case_id in suite.case_ids] for name, suite in SUITES.items()}
BALANCED = ("puppets", "puppets-full", "puppets-replicate")
DEVELOPMENT = ("puppets-dev", "puppets-dev-pose", "puppets-smoke")
POSED = (*BALANCED, "puppets-words", "puppets-pose", "puppets-crossed", *DEVELOPMENT)
SIZES = {
    "puppets": (48, 24), "puppets-full": (123, 41), "puppets-words": (48, 24), "puppets-self": (6, 6),
    "puppets-easy": (24, 24), "puppets-layout": (72, 24), "puppets-viewpoint": (72, 24), "puppets-skeleton": (72, 24),
    "puppets-pose": (72, 24), "puppets-crossed": (72, 24),
    "puppets-replicate": (48, 24),
    "puppets-dev": (24, 12), "puppets-dev-pose": (36, 12), "puppets-smoke": (2, 1),
}  # fmt: skip

each_suite = pytest.mark.parametrize("name", SUITES)


def chosen(case: PuppetCase) -> Chosen:
    return Chosen(case.action, "dev" if case.suite in DEVELOPMENT else "test", scenes(case)[0])


def shown(case: PuppetCase) -> Target:
    return Target(scenes(case)[1], target_pose(case))


def id_names_what_is_shown(case: PuppetCase) -> bool:
    reference, target = scenes(case)
    mine = f"{case.action}-{reference.rig}"
    return case.reference_id == mine and case.case_id.startswith(f"{mine}-to-{target.rig}-")


def digests_are_of_what_the_file_specifies(case: PuppetCase) -> bool:
    found = specification_digests(*scenes(case), named_action(case.action), target_pose(case))
    return dict(case.digests) == found


def licence_and_source_are_stated(case: PuppetCase) -> bool:
    return case.licence == "Apache-2.0" and bool(case.source)


def texts_say_who_and_where_and_in_one_suite_what_moves(case: PuppetCase) -> bool:
    reference, target = scenes(case)
    action = named_action(case.action)
    level = "coarse" if case.suite == "puppets-words" else "subject"
    told = (caption(reference, action, level), caption(target, action, level))
    silent = case.prompt == caption(target, (), "subject")
    return (case.caption, case.prompt) == told and silent == (level == "subject")


def axes_are_those_of_the_scenes_and_the_pose(case: PuppetCase) -> bool:
    reference, target = scenes(case)
    canonical = answers(reference, target, named_action(case.action)).actions[0]
    found = {**axes(reference, target), "pose": pose_distance(target, canonical, target_pose(case))}
    return case.axes == pytest.approx(found, abs=1e-3)


def most_of_the_action_is_seen_inside_the_frame(case: PuppetCase) -> bool:
    right = answers(*scenes(case), named_action(case.action))
    stated = abs(case.left_out_share - right.left_out_share) < 1e-4 and case.left_out_share <= MAX_LEFT_OUT_SHARE
    return stated and bool(would_do(chosen(case), [shown(case)]))


def the_wrong_action_is_another_one_that_moves(case: PuppetCase) -> bool:
    target, values = shown(case), curves(named_action(case.wrong_action), NUM_FRAMES)[None]
    image = keypoints([target.scene], torch.tensor([[target.pose]]))[0, 0]
    moved, _, _ = movement(keypoints([target.scene], values)[0], image)
    return case.wrong_action != case.action and moved >= MIN_MOVEMENT_PX


def skins_backgrounds_bodies_and_actions_are_of_the_split(case: PuppetCase) -> bool:
    split = "dev" if case.suite in DEVELOPMENT else "test"
    both = scenes(case)
    looks = {name for scene in both for name in (skin_split(scene.skin), backdrop_split(scene.backdrop))}
    allowed = split == "test" or HELD_OUT_RIG not in {scene.rig for scene in both}
    return looks == {split} and allowed and case.action in {"dev": DEV_ACTIONS, "test": TEST_ACTIONS}[split]


def the_image_is_neutral_or_no_moment_of_a_named_action(case: PuppetCase) -> bool:
    target = shown(case)
    if case.suite not in POSED:
        return target == chosen(case).starting(target.scene)
    if case.suite == "puppets-pose" and target.pose == NEUTRAL_POSE:
        return False
    distance = float(from_named(torch.tensor([target.pose]), target.scene.rig)[0])
    return target.pose == NEUTRAL_POSE or distance >= MIN_FROM_NAMED - 1e-4


PROMISES: tuple[Callable[[PuppetCase], bool], ...] = (
    id_names_what_is_shown,
    digests_are_of_what_the_file_specifies,
    licence_and_source_are_stated,
    texts_say_who_and_where_and_in_one_suite_what_moves,
    axes_are_those_of_the_scenes_and_the_pose,
    most_of_the_action_is_seen_inside_the_frame,
    the_wrong_action_is_another_one_that_moves,
    skins_backgrounds_bodies_and_actions_are_of_the_split,
    the_image_is_neutral_or_no_moment_of_a_named_action,
)


@each_suite
def test_every_case_keeps_its_promises(name: str) -> None:
    kept = {promise.__name__: [case.case_id for case in CASES[name] if not promise(case)] for promise in PROMISES}
    broken = [f"{promise.replace('_', ' ')}: not so in {', '.join(cases)}" for promise, cases in kept.items() if cases]
    assert not broken, "\n".join([name, *broken])


def test_every_recipe_is_a_suite_and_every_suite_a_recipe() -> None:
    assert set(SUITES) == set(RECIPES) == set(SIZES)


@each_suite
def test_suites_have_their_size_clusters_and_headline(name: str) -> None:
    assert SUITES[name].headline in METRICS
    cases = CASES[name]
    assert (len(cases), len({case.reference_id for case in cases})) == SIZES[name]
    assert len(set(Counter(case.reference_id for case in cases).values())) == 1
    assert len({case.target_id for case in cases}) == len(cases)
    assert len({str(case.target) + str(case.target_pose) for case in cases}) == len(cases)


def test_the_leaderboard_has_one_reference_of_each_large_action() -> None:
    for name, pool in (("puppets", TEST_ACTIONS), ("puppets-replicate", TEST_ACTIONS), ("puppets-dev", DEV_ACTIONS)):
        assert {case.action for case in CASES[name]} == {action for action in pool if is_large(pool[action])}


@pytest.mark.parametrize("name", [*BALANCED, "puppets-dev"])
def test_terciles_are_balanced(name: str) -> None:
    for axis in AXES:
        counts = Counter(case.terciles[axis] for case in CASES[name])
        assert set(counts) == set(TERCILES), axis
        assert max(counts.values()) - min(counts.values()) <= max(2, len(CASES[name]) // 12), axis


@pytest.mark.parametrize("name", BALANCED)
def test_every_body_is_on_both_sides_and_none_dominates(name: str) -> None:
    for side in ("reference", "target"):
        counts = Counter(getattr(case, side)["rig"] for case in CASES[name])
        assert set(counts) == set(RIGS)
        assert max(counts.values()) <= 2 * len(CASES[name]) / len(RIGS)


@pytest.mark.parametrize("name", BALANCED)
def test_axes_hardly_depend_on_each_other(name: str) -> None:
    """No joint cell of terciles dominates: the axes can be told apart."""
    counts = Counter(tuple(case.terciles.values()) for case in CASES[name])
    assert max(counts.values()) <= max(3, 3 * len(CASES[name]) / len(TERCILES) ** len(AXES))


def test_words_are_all_that_one_suite_changes() -> None:
    for plain, told in zip(CASES["puppets"], CASES["puppets-words"], strict=True):
        assert plain.digests == told.digests and plain.case_id == told.case_id and plain.axes == told.axes


def test_the_replication_shares_no_scene_with_another_suite() -> None:
    def shown(name: str) -> set[str]:
        return {str(scene) for case in CASES[name] for scene in (case.reference, case.target)}

    assert not shown("puppets-replicate") & {
        scene for name in SUITES if name != "puppets-replicate" for scene in shown(name)
    }


def test_the_control_is_its_own_reference_on_different_bodies() -> None:
    references = {case.reference_id: case.reference for case in CASES["puppets"]}
    for case in CASES["puppets-self"]:
        assert case.target == case.reference == references[case.reference_id]
        assert set(case.axes.values()) == {0.0}
    assert {case.reference["rig"] for case in CASES["puppets-self"]} == set(RIGS)


def _made(name: str, folder) -> dict[str, str]:
    write_suite(*curate(name), folder=folder)
    return {path.name: path.read_text() for path in (folder / name).iterdir()}


@pytest.mark.parametrize("name", ["puppets-self", "puppets-words"])
def test_copies_are_what_their_recipe_makes(name: str, tmp_path) -> None:
    assert _made(name, tmp_path) == {path.name: path.read_text() for path in (CASES_FOLDER / name).iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*DEVELOPMENT, "puppets-replicate"])
def test_suites_are_what_their_recipe_makes(name: str, tmp_path) -> None:
    assert _made(name, tmp_path) == {path.name: path.read_text() for path in (CASES_FOLDER / name).iterdir()}

"""What every case and suite that ships promises. Ids name the case."""

from collections import Counter

import pytest

from benchmark.cases import CASES_FOLDER, TERCILES, load_case, load_suite, suite_names
from benchmark.curate import RECIPES, curate, write_suite
from benchmark.curate_factors import VARIED, FactorRecipe
from benchmark.curate_rules import MAX_LEFT_OUT_SHARE, MIN_MOVEMENT_PX, inside, movement
from benchmark.truth import check_digests, named_action, scenes, specification_digests, target_pose
from flexiact.puppets.actions import DEV_ACTIONS, TEST_ACTIONS
from flexiact.puppets.captions import caption
from flexiact.puppets.rigs import HELD_OUT_RIG, RIGS
from flexiact.puppets.scene import is_held_out_backdrop, is_held_out_skin
from flexiact.puppets.transfer import answers, axes, pose_distance
from metrics import METRICS

SUITES = {name: load_suite(name) for name in suite_names()}
CASES = {
    f"{suite.name}/{case_id}": load_case(suite, case_id) for suite in SUITES.values() for case_id in suite.case_ids
}
LEADERBOARDS = ("puppets", "puppets-full")
DIFFICULTY = tuple(name for name, recipe in RECIPES.items() if isinstance(recipe, FactorRecipe))
SIZES = {"puppets": (30, 6), "puppets-full": (250, 25), "puppets-dev": (16, 4), "puppets-smoke": (2, 1)}
SIZES |= {name: (16 if name == "puppets-easy" else 24, 8) for name in DIFFICULTY}

each_suite = pytest.mark.parametrize("name", SUITES)
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def of(name: str) -> list:
    return [case for case in CASES.values() if case.suite == name]


def test_every_recipe_is_a_suite_and_every_suite_a_recipe() -> None:
    assert set(SUITES) == set(RECIPES) == set(SIZES)


@each_case
def test_id_is_the_path_and_names_what_is_shown(case) -> None:
    assert (CASES_FOLDER / case.suite / f"{case.case_id}.toml").is_file()
    reference, target = scenes(case)
    assert case.reference_id == f"{case.action}-{reference.rig}"
    assert case.case_id.startswith(f"{case.reference_id}-to-{target.rig}-")


@each_case
def test_digests_are_of_what_the_file_specifies(case) -> None:
    check_digests(case)
    assert dict(case.digests) == specification_digests(*scenes(case), named_action(case.action), target_pose(case))


@each_case
def test_licence_and_source_are_stated(case) -> None:
    assert case.licence == "Apache-2.0"
    assert case.source


@each_case
def test_texts_say_who_and_where_and_never_what_is_done(case) -> None:
    reference, target = scenes(case)
    action = named_action(case.action)
    assert case.caption == caption(reference, action, "subject")
    assert case.prompt == caption(target, action, "subject") == caption(target, (), "subject")


@each_case
def test_axes_are_those_of_the_scenes_and_the_pose(case) -> None:
    reference, target = scenes(case)
    canonical = answers(reference, target, named_action(case.action)).actions[0]
    pose = pose_distance(target, canonical, target_pose(case))
    assert case.axes == pytest.approx({**axes(reference, target), "pose": pose}, abs=1e-3)


@each_case
def test_most_of_the_action_can_be_seen_on_the_target(case) -> None:
    reference, target = scenes(case)
    right = answers(reference, target, named_action(case.action))
    assert case.left_out_share == pytest.approx(right.left_out_share, abs=1e-4)
    assert case.left_out_share <= MAX_LEFT_OUT_SHARE
    assert movement(target, right.actions[0])[0] >= MIN_MOVEMENT_PX
    assert inside(reference, named_action(case.action)) and inside(target, right.actions[0])


@each_case
def test_the_wrong_action_is_another_one_that_moves(case) -> None:
    _, target = scenes(case)
    assert case.wrong_action != case.action
    assert movement(target, named_action(case.wrong_action))[0] >= MIN_MOVEMENT_PX


@each_case
def test_leaderboard_and_difficulty_scenes_are_held_out_and_others_are_not(case) -> None:
    held_out = case.suite in (*LEADERBOARDS, *DIFFICULTY)
    for scene in scenes(case):
        assert is_held_out_skin(scene.skin) is held_out
        assert is_held_out_backdrop(scene.backdrop) is held_out
        assert held_out or scene.rig != HELD_OUT_RIG
    assert case.action in (TEST_ACTIONS if held_out else DEV_ACTIONS)


@each_suite
def test_a_suite_is_sorted_by_a_metric_that_there_is(name: str) -> None:
    assert SUITES[name].headline in METRICS


@each_suite
def test_suites_have_their_size_and_clusters(name: str) -> None:
    cases = of(name)
    assert (len(cases), len({case.reference_id for case in cases})) == SIZES[name]
    assert len(set(Counter(case.reference_id for case in cases).values())) == 1
    assert len({case.target_id for case in cases}) == len(cases)
    assert len({str(case.target) for case in cases}) == len(cases)


@pytest.mark.parametrize("name", LEADERBOARDS)
@pytest.mark.parametrize("axis", VARIED)  # with neutral targets the pose axis is the action's own
def test_leaderboards_are_balanced_over_terciles(name: str, axis: str) -> None:
    counts = Counter(case.terciles[axis] for case in of(name))
    assert set(counts) == set(TERCILES)
    assert max(counts.values()) - min(counts.values()) <= max(2, len(of(name)) // 25)


@pytest.mark.parametrize("name", LEADERBOARDS)
def test_leaderboards_show_every_rig_on_both_sides(name: str) -> None:
    for side in ("reference", "target"):
        assert {getattr(case, side)["rig"] for case in of(name)} == set(RIGS)


@pytest.mark.parametrize("name", LEADERBOARDS)
def test_leaderboard_axes_hardly_depend_on_each_other(name: str) -> None:
    """No joint cell of terciles dominates: the axes can be told apart."""
    counts = Counter(tuple(case.terciles.values()) for case in of(name))
    assert max(counts.values()) <= max(3, 3 * len(of(name)) / 27)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["puppets-smoke"])
def test_suites_are_what_their_recipe_makes(name: str, tmp_path) -> None:
    write_suite(*curate(name), folder=tmp_path)
    made, shipped = ({p.name: p.read_text() for p in (root / name).iterdir()} for root in (tmp_path, CASES_FOLDER))
    assert made == shipped

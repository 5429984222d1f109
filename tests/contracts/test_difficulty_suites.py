"""What the suites that take difficulty apart promise: one thing changes, by a measured amount, and nothing else."""

from dataclasses import replace

import pytest
import torch

from benchmark.curate.factors import BANDS, MIN_REFERENCES, FactorRecipe
from benchmark.curate.recipes import RECIPES
from benchmark.suites.puppets import AXES, TERCILES, load_suite
from benchmark.suites.truth import scenes, target_pose
from flexiact.puppets.world.rigs import CHANNELS, RIGS

RECIPE = {name: recipe for name, recipe in RECIPES.items() if isinstance(recipe, FactorRecipe)}
CASES = {suite.name: suite.chosen(suite.case_ids) for suite in map(load_suite, RECIPE)}
GRADED = [name for name, recipe in RECIPE.items() if recipe.varies]
SCENES_VARY = ("puppets-layout", "puppets-viewpoint", "puppets-skeleton", "puppets-crossed")
STRENGTHS = (1, 2, 3)
each_suite = pytest.mark.parametrize("name", RECIPE)
each_graded = pytest.mark.parametrize("name", GRADED)


def number(case) -> int:
    return int(case.case_id.rpartition("-")[2])


BY_PLACE = {(name, case.reference_id, number(case)): case for name, cases in CASES.items() for case in cases}
REFERENCES = sorted({case.reference_id for case in CASES["puppets-easy"]})


def target(name: str, reference_id: str, strength: int):
    return scenes(BY_PLACE[name, reference_id, strength])[1]


def test_there_is_an_easy_suite_one_for_each_axis_and_a_crossed_one() -> None:
    named = {f"puppets-{axis}": (axis,) for axis in AXES}
    expected = {"puppets-easy": (), **named, "puppets-crossed": AXES, "puppets-dev-pose": ("pose",)}
    assert {name: recipe.varies for name, recipe in RECIPE.items()} == expected


@each_suite
def test_a_suite_has_references_enough_and_says_which_it_lacks(name: str) -> None:
    missing = 24 - len(REFERENCES) if RECIPE[name].pool == "test" else 0
    assert len({case.reference_id for case in CASES[name]}) >= MIN_REFERENCES[RECIPE[name].pool]
    assert ("without" in load_suite(name).summary) is (missing > 0)


@each_suite
def test_held_axes_are_zero_and_its_own_lie_in_their_bands(name: str) -> None:
    broken = []
    for case in CASES[name]:
        for axis in AXES:
            low, high = BANDS[axis][number(case) - 1] if axis in RECIPE[name].varies else (0.0, 0.0)
            broken += [] if low <= case.axes[axis] <= high else [(case.case_id, axis)]
    assert not broken


@each_graded
def test_each_reference_has_each_strength_once_in_ascending_order(name: str) -> None:
    for reference_id in {case.reference_id for case in CASES[name]}:
        mine = [BY_PLACE[name, reference_id, strength] for strength in STRENGTHS]
        for axis in RECIPE[name].varies:
            assert [case.terciles[axis] for case in mine] == list(TERCILES)
            values = [case.axes[axis] for case in mine]
            assert values == sorted(set(values))


def test_bands_ascend_without_touching_and_part_as_the_default_suite_does() -> None:
    edges = load_suite("puppets").edges
    for axis, (first, second, third) in BANDS.items():
        ends = [*first, *second, *third]
        assert ends == sorted(set(ends))
        assert ends[0] > 0
        assert first[0] < edges[axis][0] < second[1], axis
        assert second[0] < edges[axis][1] < third[1], axis


@each_suite
def test_references_are_those_of_the_leaderboard(name: str) -> None:
    board = "puppets" if RECIPE[name].pool == "test" else "puppets-dev"
    suite = load_suite(board)
    shared = {c.reference_id: c.reference for c in suite.chosen(suite.case_ids)}
    mine = {case.reference_id: case.reference for case in CASES[name]}
    assert {reference_id: shared[reference_id] for reference_id in mine} == mine


def test_easy_targets_differ_in_their_look_alone() -> None:
    for case in CASES["puppets-easy"]:
        reference, shown = scenes(case)
        assert replace(shown, skin=reference.skin, stance=reference.stance, backdrop=reference.backdrop) == reference
        assert shown.backdrop != reference.backdrop
        assert shown.stance != reference.stance


def test_a_held_pose_is_within_the_near_third_of_the_default_suite() -> None:
    for name in ("puppets-easy", *SCENES_VARY[:3]):
        assert max(case.axes["pose"] for case in CASES[name]) <= load_suite("puppets").edges["pose"][0]


@pytest.mark.parametrize("strength", STRENGTHS)
def test_each_factor_changes_one_thing_of_the_easy_target_and_crossed_the_same_four(strength: int) -> None:
    for reference_id in REFERENCES:
        base = target("puppets-easy", reference_id, 1)
        moved, turned, other, crossed = (target(name, reference_id, strength) for name in SCENES_VARY)
        place = {"scale": moved.camera.scale, "x": moved.camera.x, "y": moved.camera.y}
        view = {"yaw_deg": turned.camera.yaw_deg, "pitch_deg": turned.camera.pitch_deg}
        body = {"rig": other.rig, "proportions": other.proportions}
        assert moved == replace(base, camera=replace(base.camera, **place)) != base, reference_id
        assert turned == replace(base, camera=replace(base.camera, **view)) != base, reference_id
        assert other == replace(base, **body) != base, reference_id
        assert crossed == replace(base, camera=replace(base.camera, **place, **view), **body), reference_id
        assert target("puppets-pose", reference_id, strength) == base, reference_id
        alone, together = (
            target_pose(BY_PLACE[n, reference_id, strength]) for n in ("puppets-pose", "puppets-crossed")
        )
        shared = [CHANNELS.index(c) for c in set(RIGS[base.rig].channels) & set(RIGS[crossed.rig].channels)]
        assert torch.equal(torch.tensor(alone)[shared], torch.tensor(together)[shared]), reference_id


def test_the_least_other_body_can_do_the_same() -> None:
    for reference_id in REFERENCES:
        other, own = (target(name, reference_id, 1).rig for name in ("puppets-skeleton", "puppets-easy"))
        assert RIGS[other].channels == RIGS[own].channels, reference_id

"""What the suites that take difficulty apart promise: one thing changes, by a measured amount, and nothing else."""

from dataclasses import replace

import pytest

from benchmark.cases import TERCILES, load_case, load_suite
from benchmark.curate import RECIPES
from benchmark.curate_factors import BANDS, VARIED, FactorRecipe
from benchmark.truth import scenes
from flexiact.puppets.transfer import axes

VARIES = {name: recipe.varies for name, recipe in RECIPES.items() if isinstance(recipe, FactorRecipe)}
CASES = {name: [load_case(load_suite(name), case_id) for case_id in load_suite(name).case_ids] for name in VARIES}
GRADED = [name for name, varied in VARIES.items() if varied]
each_suite = pytest.mark.parametrize("name", VARIES)
each_graded = pytest.mark.parametrize("name", GRADED)


def number(case) -> int:
    return int(case.case_id.rpartition("-")[2])


def target(name: str, reference_id: str, strength: int):
    (case,) = [c for c in CASES[name] if (c.reference_id, number(c)) == (reference_id, strength)]
    return scenes(case)[1]


REFERENCES = sorted({case.reference_id for case in CASES["puppets-easy"]})
each_reference = pytest.mark.parametrize("reference_id", REFERENCES)


def test_there_is_an_easy_suite_one_for_each_axis_and_a_crossed_one() -> None:
    named = {f"puppets-{axis}": (axis,) for axis in VARIED}
    assert VARIES == {"puppets-easy": (), **named, "puppets-crossed": VARIED}


@each_suite
def test_a_suite_has_cases_and_references_enough_for_a_claim(name: str) -> None:
    assert len(CASES[name]) >= 12
    assert len({case.reference_id for case in CASES[name]}) >= 8


@each_suite
def test_held_axes_are_zero_and_its_own_lie_in_their_bands(name: str) -> None:
    for case in CASES[name]:
        measured = axes(*scenes(case))
        for axis in VARIED:
            if axis in VARIES[name]:
                low, high = BANDS[axis][number(case) - 1]
                assert low <= measured[axis] <= high, case.case_id
            else:
                assert measured[axis] == case.axes[axis] == 0, case.case_id


@each_graded
def test_each_reference_has_each_strength_once_in_ascending_order(name: str) -> None:
    for reference_id in REFERENCES:
        mine = sorted((c for c in CASES[name] if c.reference_id == reference_id), key=number)
        assert [number(case) for case in mine] == [1, 2, 3]
        for axis in VARIES[name]:
            assert [case.terciles[axis] for case in mine] == list(TERCILES)
            values = [case.axes[axis] for case in mine]
            assert values == sorted(set(values))


def test_bands_ascend_without_touching() -> None:
    for bands in BANDS.values():
        ends = [end for band in bands for end in band]
        assert ends == sorted(set(ends))
        assert ends[0] > 0


@each_suite
def test_references_are_the_same_in_every_suite(name: str) -> None:
    easy = {case.reference_id: scenes(case)[0] for case in CASES["puppets-easy"]}
    assert {case.reference_id: scenes(case)[0] for case in CASES[name]} == easy
    assert len({scene.rig for scene in easy.values()}) >= 4


def test_easy_targets_differ_in_their_look_alone() -> None:
    for case in CASES["puppets-easy"]:
        reference, shown = scenes(case)
        assert replace(shown, skin=reference.skin, stance=reference.stance, backdrop=reference.backdrop) == reference
        assert shown.backdrop != reference.backdrop
        assert shown.stance != reference.stance


@each_reference
@pytest.mark.parametrize("strength", [1, 2, 3])
def test_each_factor_changes_one_thing_of_the_easy_target_and_crossed_the_same_three(
    reference_id: str, strength: int
) -> None:
    base = target("puppets-easy", reference_id, 1)
    moved, turned, other, crossed = (target(name, reference_id, strength) for name in GRADED)
    place = {"scale": moved.camera.scale, "x": moved.camera.x, "y": moved.camera.y}
    view = {"yaw_deg": turned.camera.yaw_deg, "pitch_deg": turned.camera.pitch_deg}
    body = {"rig": other.rig, "proportions": other.proportions}
    assert moved == replace(base, camera=replace(base.camera, **place)) != base
    assert turned == replace(base, camera=replace(base.camera, **view)) != base
    assert other == replace(base, **body) != base
    assert crossed == replace(base, camera=replace(base.camera, **place, **view), **body)


@each_reference
def test_the_least_other_body_is_of_the_same_kind(reference_id: str) -> None:
    assert target("puppets-skeleton", reference_id, 1).rig == target("puppets-easy", reference_id, 1).rig

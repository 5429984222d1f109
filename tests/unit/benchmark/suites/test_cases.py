from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.curate.files import case_to_toml, sealed, suite_to_toml
from benchmark.planning.selection import UsageError, select
from benchmark.suites.case import CaseError
from benchmark.suites.puppets import PuppetCase, load_case, load_suite, tercile
from benchmark.suites.truth import named_action, scenes, specification_digests, target_pose
from flexiact.puppets.world.clip import NEUTRAL_POSE
from tests.support.harness import CASES, small_suite

SUITE = sealed(small_suite(CASES), CASES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "suite.toml").write_text(suite_to_toml(SUITE))
    for case in CASES:
        (tmp_path / "small" / f"{case.case_id}.toml").write_text(case_to_toml(case))
    return tmp_path


def test_suite_and_cases_survive_their_files(folder: Path) -> None:
    (folder / "small/._suite.toml").write_bytes(b"\0\5\x16\7")  # what a Mac leaves behind
    assert load_suite("small", folder) == SUITE
    for case in CASES:
        loaded = load_case(SUITE, case.case_id, folder)
        # TOML has lists only, terciles are not stored: the scenes, not the texts, have to be the same.
        assert scenes(loaded) == scenes(case)
        assert case_to_toml(loaded) == case_to_toml(case)
        loaded.check()


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ('licence = "Apache-2.0"', 'licence = ""', "licence"),
        ('source = "rendered by flexiact.puppets"', "source = 3", "source"),
        ("left_out_share = 0.0", "left_out_share = 1.5", "left_out_share"),
        ("layout = ", "layout = -", "axes.layout"),
        ("pose = ", "stance_ = ", "axes.pose"),
        ("left_out_share = 0.0", 'left_out_share = 0.0\ntarget_pose = ["up"]', "target_pose"),
        ('truth = "', 'truth = "xyz', "digests.truth"),
        ("[axes]", "[axis]", "axes"),
        ("case_id = ", "identity = ", "case_id"),
        ("caption = ", "caption == ", "not TOML"),
    ],
)
def test_a_case_that_says_nonsense_is_refused_by_field(folder: Path, before: str, after: str, field: str) -> None:
    path = folder / "small" / f"{CASES[0].case_id}.toml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(CaseError, match=field):
        load_case(SUITE, CASES[0].case_id, folder)


def test_a_changed_scene_no_longer_has_its_digest(folder: Path) -> None:
    path = folder / "small" / f"{CASES[0].case_id}.toml"
    path.write_text(path.read_text().replace("yaw_deg = ", "yaw_deg = 1", 1))
    with pytest.raises(CaseError, match="digests.reference"):
        load_case(SUITE, CASES[0].case_id, folder).check()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('rig = "', "rig = [1] #"),
        ('primary = "', "primary = {a = 1} #"),
        ("yaw_deg = ", 'yaw_deg = "left" #'),
        ('rig = "', 'rig = "two\\nlines'),
        ('primary = "', '"two\\nlines" = "'),
        ('\naction = "', '\naction = "two\\nlines'),
    ],
)
def test_a_scene_or_action_of_nonsense_is_refused_in_one_line(folder: Path, before: str, after: str) -> None:
    path = folder / "small" / f"{CASES[0].case_id}.toml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    with pytest.raises(CaseError) as refused:
        load_case(SUITE, CASES[0].case_id, folder).check()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        (f"{CASES[0].case_id}.toml", "a blue dog", "a green dog"),
        ("suite.toml", "version = 1", "version = 2"),
        ("suite.toml", 'summary = "for', 'summary = "not for'),
    ],
)
def test_a_suite_that_was_changed_no_longer_has_its_digest(folder: Path, file: str, before: str, after: str) -> None:
    path = folder / "small" / file
    path.write_text(path.read_text() + "\n# a remark changes nothing\n")
    assert load_suite("small", folder) == SUITE
    assert before in path.read_text()
    path.write_text(path.read_text().replace(before, after, 1))
    with pytest.raises(CaseError, match=f"digest: the file says {SUITE.digest}, its cases have"):
        load_suite("small", folder)


def test_a_suite_without_a_case_no_longer_has_its_digest(folder: Path) -> None:
    (folder / "small" / f"{CASES[1].case_id}.toml").unlink()
    with pytest.raises(CaseError, match="make the suite again"):
        load_suite("small", folder)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("version = 0", "version: expected a whole number above 0"),
        ('version = "one"', "version: expected a whole number above 0"),
        ("version = 1\nfit_share = 0.0", r"fit_share: expected a number in \(0, 1\], got 0.0"),
        ("version = 1\nfit_share = 1.1", r"fit_share: expected a number in \(0, 1\], got 1.1"),
    ],
)
def test_a_number_of_a_suite_that_cannot_be_is_named(folder: Path, line: str, said: str) -> None:
    path = folder / "small" / "suite.toml"
    path.write_text(path.read_text().replace("version = 1", line))
    with pytest.raises(CaseError, match=said):
        load_suite("small", folder)


def test_a_suite_of_short_fits_survives_its_file(folder: Path) -> None:
    short = sealed(replace(SUITE, fit_share=0.25), CASES)
    (folder / "small" / "suite.toml").write_text(suite_to_toml(short))
    assert load_suite("small", folder) == short and short.digest != SUITE.digest


def test_a_target_pose_survives_its_file_and_is_in_the_digests(folder: Path) -> None:
    pose = (0.5, *NEUTRAL_POSE[1:])
    digests = specification_digests(*scenes(CASES[0]), named_action(CASES[0].action), pose)
    changed = {name for name, value in digests.items() if value != CASES[0].digests[name]}
    assert changed == {"target", "truth"}
    posed = replace(CASES[0], target_pose=pose, digests=digests)
    (folder / "small" / f"{posed.case_id}.toml").write_text(case_to_toml(posed))
    loaded = load_case(SUITE, posed.case_id, folder)
    assert loaded.target_pose == target_pose(loaded) == pose
    loaded.check()


def test_a_case_without_a_target_pose_shows_the_neutral_one(folder: Path) -> None:
    assert target_pose(CASES[0]) == NEUTRAL_POSE
    replace(CASES[0], target_pose=NEUTRAL_POSE).check()


def test_a_target_pose_of_another_length_is_refused() -> None:
    with pytest.raises(CaseError, match="target_pose: expected 21 numbers, got 2"):
        replace(CASES[0], target_pose=(0.1, 0.2)).check()


def test_a_suite_may_have_another_headline(folder: Path) -> None:
    path = folder / "small" / "suite.toml"
    assert load_suite("small", folder).headline == "motion_agreement_centred"
    other = sealed(replace(SUITE, headline="motion_agreement"), CASES)
    path.write_text(suite_to_toml(other))
    assert load_suite("small", folder) == other
    path.write_text("headline = 3\n" + suite_to_toml(SUITE))
    with pytest.raises(CaseError, match="headline"):
        load_suite("small", folder)


def test_an_unknown_suite_is_answered_with_the_list(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown suite 'smal' \(did you mean 'small'\?\); choose from small"):
        load_suite("smal", folder)


@pytest.mark.parametrize(
    ("value", "name"), [(0.1, "near"), (0.2, "near"), (0.3, "middle"), (0.4, "middle"), (0.5, "far")]
)
def test_terciles_include_their_upper_edge(value: float, name: str) -> None:
    assert tercile(value, (0.2, 0.4)) == name


NAMES = ["flexiact", "flexiact-no-schedule", "i2v"]


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        (["all"], NAMES),
        (["i2v", "flexiact"], ["flexiact", "i2v"]),
        (["flexiact*"], NAMES[:2]),
        (["i2v,flexiact"], ["flexiact", "i2v"]),
        (["i2v", "all"], NAMES),
    ],
)
def test_selection(patterns: list[str], chosen: list[str]) -> None:
    assert select(patterns, NAMES, "method") == chosen


@pytest.mark.parametrize("pattern", ["flexact", "x*", "", " , "])
def test_a_wrong_name_is_answered_with_the_list(pattern: str) -> None:
    with pytest.raises(UsageError, match="method.*choose from flexiact, flexiact-no-schedule, i2v"):
        select([pattern], NAMES, "method")


def test_the_closest_name_is_offered() -> None:
    with pytest.raises(UsageError, match="did you mean 'flexiact'"):
        select(["FlexAct"], NAMES, "method")


def test_cases_compare_by_value() -> None:
    assert isinstance(CASES[0], PuppetCase)
    assert CASES[0] != CASES[1]

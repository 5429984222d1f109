"""What is taken over from the reference, and what is kept of the target's subject."""

from dataclasses import replace

import numpy as np
import pytest

from benchmark.suites.truth import Format, stage
from metrics import METRICS, Features
from tests.support.harness import small_case
from tests.support.metric_features import COLOURS, NUM_FRAMES, OTHER_COLOURS, draw, features, leaking, perfect, unit


def value(name: str, made: Features) -> float | None:
    return METRICS[name].compute(made)


def spoiled(made: Features, **changes: np.ndarray) -> Features:
    return replace(made, generated=replace(made.generated, **changes))


def coloured(made: Features, colours: np.ndarray, points: np.ndarray | None = None) -> Features:
    """The true figure, or that with other keypoints, in other colours of its three parts."""
    there = made.generated.keypoints if points is None else points
    return spoiled(made, frames=draw(there, colours)[0], keypoints=there)


@pytest.fixture
def right() -> Features:
    return perfect(features(), "truth")


# ----------------------------------------------------------------------------------------------------------- the looks


def test_the_references_skin_is_a_leak_and_the_targets_is_none_in_any_pose(right):
    elsewhere = right.generated.keypoints[::-1] + np.array([4, 2], np.float32)
    for points in (None, elsewhere):
        assert value("appearance_leakage", coloured(right, OTHER_COLOURS, points)) == 1
        assert value("appearance_leakage", coloured(right, COLOURS, points)) == 0
    assert value("appearance_leakage", leaking(right, 0.3)) == pytest.approx(0.3, abs=0.06)


def test_a_third_skin_is_an_error_but_no_leak(right):
    shade = coloured(right, (COLOURS * 0.8).astype(np.uint8))
    assert value("appearance_leakage", shade) == 0 and value("true_appearance_error", shade) > 5


def test_skins_that_cannot_be_told_apart_are_a_skip(right):
    twin = replace(right.reference, frames=right.truth.frames)
    alike = replace(right, reference=twin, source=replace(right.source, body=right.truth.parts >= 0))
    assert value("appearance_leakage", alike) is None
    assert "too alike" in METRICS["appearance_leakage"].skip_reason(alike)


def test_embedded_leak_is_one_for_the_reference_and_none_for_going_elsewhere():
    made = features()
    assert value("appearance_leakage_embedded", perfect(made, "reference")) == pytest.approx(1)
    away = spoiled(made, image_embeddings=-made.reference.image_embeddings)
    assert value("appearance_leakage_embedded", away) == 0
    shorter = replace(made, reference=made.target, source=None)
    assert "length" in METRICS["appearance_leakage_embedded"].skip_reason(shorter)


# -------------------------------------------------------------------------------------------------- place and viewpoint


def test_layout_leak_is_the_difference_of_two_agreements(right):
    there = np.where(np.isnan(right.source.keypoints), right.generated.keypoints, right.source.keypoints)
    copied, own = spoiled(right, keypoints=there), value("layout_leakage", right)
    assert value("layout_leakage", copied) == pytest.approx(-own) and own < -0.1
    halfway = spoiled(right, keypoints=(there + right.generated.keypoints) / 2)
    assert own < value("layout_leakage", halfway) < value("layout_leakage", copied)


def test_bodies_without_a_joint_in_common_have_no_layout_leak(right):
    strange = replace(right, source=replace(right.source, keypoints=np.full_like(right.source.keypoints, np.nan)))
    assert value("layout_leakage", strange) is None and value("viewpoint_leakage", strange) is not None


def test_viewpoint_leak_sees_the_side_and_not_the_place(right):
    copied = spoiled(right, keypoints=np.nan_to_num(right.source.seen_from_there) + np.float32(7))
    own = value("viewpoint_leakage", right)
    assert value("viewpoint_leakage", copied) == pytest.approx(-own, abs=1e-5) and own < -0.1
    moved = spoiled(right, keypoints=right.generated.keypoints + np.float32(7))
    assert value("viewpoint_leakage", moved) == pytest.approx(own, abs=1e-5)


def test_one_side_for_both_is_a_skip(right):
    same = replace(right, source=replace(right.source, seen_from_there=right.truth.keypoints[0]))
    assert "same from both sides" in METRICS["viewpoint_leakage"].skip_reason(same)


def test_a_staged_case_knows_its_reference():
    form, case = Format(9, 64, 64, 8.0), small_case()
    staged = stage(case, form)
    source = staged.source
    shown = staged.reference.frames[source.body].astype(float).std(0).mean()
    assert 0.02 < source.body.mean() < 0.6 and shown > staged.reference.frames[~source.body].astype(float).std(0).mean()
    assert np.isnan(source.keypoints).any((0, 2)).sum() == np.isnan(source.keypoints).all((0, 2)).sum()
    assert not np.allclose(source.seen_from_there, staged.truth.keypoints[0], atol=1)
    angles = {name: case.target["camera"][name] for name in ("yaw_deg", "pitch_deg")}
    beside = replace(case, reference={**case.reference, "camera": {**case.reference["camera"], **angles}})
    again = stage(beside, form)
    np.testing.assert_allclose(again.source.seen_from_there, again.truth.keypoints[0], atol=1e-4)


# ------------------------------------------------------------------------------------------------------------ identity


def test_exchanged_limbs_are_seen_by_part_alone(right):
    exchanged = coloured(right, COLOURS[[1, 0, 2]])
    assert value("identity_masked", exchanged) == 1
    assert value("identity_by_part", exchanged) == pytest.approx(1 / 3)
    assert value("identity_masked", coloured(right, OTHER_COLOURS)) == 0


def test_a_part_that_is_gone_is_lost_by_part_and_a_subject_that_is_gone_is_lost_to_both(right):
    scores = right.generated.keypoint_scores.copy()
    scores[:, 0] = 0.0
    lacking = spoiled(right, keypoint_scores=scores)
    assert value("identity_masked", lacking) == 1 and value("identity_by_part", lacking) == pytest.approx(2 / 3)
    gone = spoiled(right, keypoint_scores=np.zeros_like(scores))
    assert value("identity_masked", gone) == value("identity_by_part", gone) == 0
    assert value("appearance_leakage", gone) is None


def test_embedded_identity_is_vbenchs_sum():
    angles = np.linspace(0, np.pi / 2, NUM_FRAMES) ** 2
    turning = np.zeros((NUM_FRAMES, 12))
    turning[:, 0], turning[:, 1] = np.cos(angles), np.sin(angles)
    made = features()
    made = spoiled(made, image_embeddings=unit(turning))
    made = replace(made, target=replace(made.target, image_embeddings=unit(np.eye(12)[1:2])))
    steps = np.maximum(np.cos(np.diff(angles)), 0)
    nearest = max(0, np.sin(angles).max())
    expected = 0.4 * nearest + 0.3 * steps.mean() + 0.3 * steps.min()
    assert value("identity_embedded", made) == pytest.approx(expected, abs=1e-6)

"""Cases worked out by hand, one family of metrics after another."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from metrics import METRICS, Candidates, Features, VideoFeatures
from metrics.appearance.appearance_error import MISS_PENALTY, lab, true_colours
from metrics.features import cosines, detected
from tests.support.metric_features import COLOURS, FIRST, NUM_FRAMES, SETTLED, features, perfect, still, truth

# ---------------------------------------------------------------------------------------------------- motion agreement


def value(name: str, made: Features) -> float | None:
    return METRICS[name].compute(made)


def spoiled(made: Features, **changes: np.ndarray) -> Features:
    return replace(made, generated=replace(made.generated, **changes))


def test_opposite_motion_has_agreement_minus_one():
    made = perfect(features(), "truth")
    origin = made.target.keypoints
    mirrored = spoiled(made, keypoints=2 * origin - made.generated.keypoints)
    assert value("motion_agreement", mirrored) == pytest.approx(-1)
    assert value("amplitude_ratio", mirrored) == pytest.approx(1)
    assert value("motion_lag", replace(mirrored, truth=replace(mirrored.truth, first_scored_frame=3))) is not None


def test_miss_is_zero_displacement_not_a_gap():
    made = perfect(features(), "truth")
    scores = made.generated.keypoint_scores.copy()
    scores[:, 0] = 0.0
    moves = made.truth.keypoints[0, FIRST:, :6] - made.truth.target_keypoints[:6]
    share = (moves[:, 1:] ** 2).sum() / (moves**2).sum()
    missed = spoiled(made, keypoint_scores=scores)
    assert value("motion_agreement", missed) == pytest.approx(np.sqrt(share), abs=1e-6)
    assert value("amplitude_ratio", missed) == pytest.approx(np.sqrt(share), abs=1e-6)
    assert value("pck", missed) == pytest.approx(5 / 6)
    scores[:] = np.nan
    nothing = spoiled(made, keypoint_scores=scores)
    assert value("motion_agreement", nothing) == 0 and value("pck", nothing) == 0


def test_a_miss_is_wrong_even_where_the_truth_is_in_the_corner():
    made = perfect(features(), "truth")
    points = made.truth.keypoints.copy()
    points[:, :, 0] = 1.0
    scores = made.generated.keypoint_scores.copy()
    scores[:, 0] = 0.0
    cornered = replace(made, truth=replace(made.truth, keypoints=points))
    assert value("pck", spoiled(cornered, keypoint_scores=scores)) == pytest.approx(5 / 6)


def test_miss_in_the_target_image_voids_the_keypoint():
    made = perfect(features(), "truth")
    scores = made.target.keypoint_scores.copy()
    scores[0, :6] = 0
    assert value("motion_agreement", replace(made, target=replace(made.target, keypoint_scores=scores))) == 0


def test_constant_offset_of_the_estimator_cancels():
    made = perfect(features(), "truth")
    off = replace(made.target, keypoints=made.target.keypoints + np.float32(4))
    moved = replace(spoiled(made, keypoints=made.generated.keypoints + np.float32(4)), target=off)
    assert value("motion_agreement", moved) == pytest.approx(1) and value("pck", moved) == 0


def test_any_acceptable_answer_is_right():
    made = features(num_answers=3)
    for answer in made.truth.keypoints:
        right = spoiled(perfect(made, "truth"), keypoints=np.nan_to_num(answer))
        assert value("motion_agreement", right) == pytest.approx(1)
        assert value("amplitude_ratio", right) == pytest.approx(1) and value("pck", right) == 1


def test_frames_before_the_first_scored_one_do_not_count():
    made = perfect(features(), "truth")
    points = made.generated.keypoints.copy()
    points[:FIRST] = 0
    assert value("motion_agreement", spoiled(made, keypoints=points)) == pytest.approx(1)


def test_uncounted_keypoints_do_not_count():
    made = perfect(features(), "truth")
    points = made.generated.keypoints.copy()
    points[:, 6] += np.arange(NUM_FRAMES)[:, None]
    assert value("motion_agreement", spoiled(made, keypoints=points)) == pytest.approx(1)


def test_truth_that_stands_still_is_a_skip():
    made = features()
    points = np.broadcast_to(made.truth.target_keypoints, made.truth.keypoints.shape)
    still_truth = replace(made.truth, keypoints=points)
    for name in ("motion_agreement", "amplitude_ratio", "motion_lag"):
        assert value(name, replace(made, truth=still_truth)) is None
    assert value("pck", replace(made, truth=still_truth)) is not None


@pytest.mark.parametrize("lag", [-2, -1, 0, 1, 2])
def test_lag_is_found_and_positive_when_late(lag):
    made = perfect(features(), "truth")
    late = np.clip(np.arange(NUM_FRAMES) - lag, 0, NUM_FRAMES - 1)
    assert value("motion_lag", spoiled(made, keypoints=made.generated.keypoints[late])) == lag


def test_amplitude_ratio_is_capped():
    made = perfect(features(), "truth")
    points = made.target.keypoints + 30 * (made.generated.keypoints - made.target.keypoints)
    assert value("amplitude_ratio", spoiled(made, keypoints=points)) == 10


def test_pck_counts_a_point_on_the_border():
    made = perfect(features(), "truth")
    shift = np.array([3.0 - 1e-4, 0], np.float32)  # 0.1 of the body size of 30
    assert value("pck", spoiled(made, keypoints=made.generated.keypoints + shift)) == 1
    assert value("pck", spoiled(made, keypoints=made.generated.keypoints + np.float32(1.01) * shift)) == 0


# ------------------------------------------------------------------------------------------- movement about the middle


def test_settling_anywhere_and_standing_still_earns_nothing():
    made = perfect(features(), "truth")
    points = made.generated.keypoints.copy()
    points[SETTLED:] = points[SETTLED]
    frozen = spoiled(made, keypoints=points)
    assert value("motion_agreement", frozen) > 0.2
    assert value("motion_agreement_centred", frozen) == 0 == value("action_retrieval", frozen)


def test_where_the_body_is_and_how_it_got_there_do_not_matter_to_its_movement():
    made = perfect(features(), "truth")
    points = made.generated.keypoints + np.arange(7, dtype=np.float32)[:, None]
    points[:SETTLED] = 0
    elsewhere = spoiled(made, keypoints=points)
    assert value("motion_agreement", elsewhere) < 0.9
    assert value("motion_agreement_centred", elsewhere) == pytest.approx(1)
    assert value("action_retrieval", elsewhere) == 1


def test_flicker_of_the_estimator_is_no_movement():
    made = still(features())
    scores = made.generated.keypoint_scores.copy()
    scores[SETTLED::2] = 0
    points = np.where(scores[..., None] > 0, made.generated.keypoints, np.float32(np.nan))
    assert value("motion_agreement_centred", spoiled(made, keypoints=points, keypoint_scores=scores)) == 0


@pytest.mark.parametrize("missed", [(5,), (4, 7), (4, 5, 6, 7)])
def test_hiding_a_keypoint_never_pays(missed):
    made = perfect(features(), "truth")
    scores = made.generated.keypoint_scores.copy()
    scores[list(missed), 0] = 0
    hidden = spoiled(made, keypoint_scores=scores)
    for name, worse in (("motion_agreement_centred", -1), ("arrival", 1)):
        assert worse * (value(name, hidden) - METRICS[name].best_value) > 1e-3


def test_retrieval_asks_for_the_nearest_and_any_right_one_will_do():
    made = perfect(features(num_answers=2), "truth")
    others = np.flatnonzero(~made.candidates.right)
    for index, points in enumerate(made.candidates.keypoints):
        seen = spoiled(made, keypoints=np.nan_to_num(points))
        assert value("action_retrieval", seen) == float(index not in others)


def test_retrieval_is_a_skip_where_the_right_action_stands_still():
    made = features()
    points = made.candidates.keypoints.copy()
    points[made.candidates.right, SETTLED:] = points[made.candidates.right, SETTLED][:, None]
    assert value("action_retrieval", replace(made, candidates=replace(made.candidates, keypoints=points))) is None


def test_arrival_is_the_error_that_is_left_of_a_still_image():
    made = perfect(features(), "truth")
    halfway = (made.generated.keypoints + made.target.keypoints) / 2
    assert value("arrival", spoiled(made, keypoints=halfway)) == pytest.approx(0.5)
    opposite = spoiled(made, keypoints=2 * made.target.keypoints - made.generated.keypoints)
    assert value("arrival", opposite) == pytest.approx(2)
    assert value("arrival", spoiled(made, keypoints=made.generated.keypoints + np.float32(1000))) == 10
    points = made.generated.keypoints.copy()
    points[:SETTLED] = 0
    assert value("arrival", spoiled(made, keypoints=points)) == pytest.approx(0)


def test_a_jump_is_measured_by_the_canonical_answers_largest_step():
    made = perfect(features(num_answers=2), "truth")
    largest = np.linalg.norm(np.diff(made.truth.keypoints[0, :, :6], axis=0), axis=-1).max()
    held = np.repeat(made.generated.keypoints[:1], NUM_FRAMES, 0)
    held[3:, 2] += np.array([0, 2 * largest], np.float32)
    assert value("jump", spoiled(made, keypoints=held)) == pytest.approx(2, abs=1e-5)
    scores = made.generated.keypoint_scores.copy()
    scores[3, 2] = 0
    assert value("jump", spoiled(made, keypoints=held, keypoint_scores=scores)) == 0


# ---------------------------------------------------------------------------------------------------------- appearance


def test_lab_of_known_colours():
    known = {(255, 255, 255): (100, 0, 0), (0, 0, 0): (0, 0, 0), (255, 0, 0): (53.24, 80.09, 67.20)}
    for rgb, expected in known.items():
        assert lab(np.array(rgb, np.uint8)) == pytest.approx(expected, abs=0.02)


def test_lab_is_opencvs_within_the_coarseness_of_its_table():
    rgb = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    assert np.abs(lab(rgb) - cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)).max() < 0.5


def test_colours_of_parts_are_the_truths():
    answer = truth(np.random.default_rng(0))
    assert set(true_colours(answer)) == {0, 1, 2}
    for b, colours in true_colours(answer).items():
        assert len(colours) > 100 and np.abs(colours - lab(COLOURS[b])).max() < 1e-9
    hidden = replace(answer, parts=np.where(answer.parts == 1, np.int8(-1), answer.parts))
    assert set(true_colours(hidden)) == {0, 2}


def test_wrong_colour_costs_its_delta_e_whatever_the_pose():
    made = perfect(features(), "truth")
    error = np.linalg.norm(lab(np.array([110, 40, 40], np.uint8)) - lab(COLOURS[0]))
    frames = np.where((made.truth.parts == 0)[..., None], np.array([110, 40, 40], np.uint8), made.truth.frames)
    assert 0 < error < MISS_PENALTY
    assert value("true_appearance_error", spoiled(made, frames=frames)) == pytest.approx(error / 3)
    moved = np.roll(frames, (2, -3), (1, 2))
    points = made.generated.keypoints + np.array([-3, 2], np.float32)
    assert value("true_appearance_error", spoiled(made, frames=moved, keypoints=points)) == pytest.approx(error / 3)


def test_parts_that_are_not_there_cost_the_most():
    made = perfect(features(), "truth")
    scores = made.generated.keypoint_scores.copy()
    scores[:, 0] = 0
    assert value("true_appearance_error", spoiled(made, keypoint_scores=scores)) == pytest.approx(MISS_PENALTY / 3)
    away = made.generated.keypoints + np.float32(1000)
    assert value("true_appearance_error", spoiled(made, keypoints=away)) == MISS_PENALTY
    black = spoiled(made, frames=np.zeros_like(made.truth.frames))
    assert value("true_appearance_error", black) <= MISS_PENALTY
    scores[: FIRST + 2] = 1  # now only the first two scored frames show the part
    share = (NUM_FRAMES - FIRST - 2) / (NUM_FRAMES - FIRST)
    sometimes = value("true_appearance_error", spoiled(made, keypoint_scores=scores))
    assert sometimes == pytest.approx(share * MISS_PENALTY / 3)


def spotted(every: int) -> tuple[Features, np.ndarray, float]:
    """The truth, its frames with every n-th column of pixels of the first part in another colour, and by how much."""
    made, other = perfect(features(), "truth"), np.array([110, 40, 40], np.uint8)
    mask = (made.truth.parts == 0) & (np.arange(made.truth.parts.shape[2]) % every == 0)
    distance = float(np.linalg.norm(lab(other) - lab(COLOURS[0])))
    return made, np.where(mask[..., None], other, made.truth.frames), distance


def test_what_crosses_in_front_less_than_half_of_the_time_costs_nothing():
    made, frames, _ = spotted(every=3)
    assert value("true_appearance_error", spoiled(made, frames=frames)) == pytest.approx(0, abs=1e-9)


def test_a_lost_pattern_costs_by_its_share_of_the_part():
    made, frames, distance = spotted(every=3)
    patterned = replace(made, truth=replace(made.truth, frames=frames))
    assert value("true_appearance_error", patterned) == pytest.approx(distance / 3 / 2 / 3, rel=0.1)
    assert value("true_appearance_error", spoiled(patterned, frames=frames)) == pytest.approx(0, abs=1e-9)


# ---------------------------------------------------------------------------------------------------------- tracklets


def moving(*directions: tuple[float, float], num_frames: int = 5, speed: float = 4.0) -> VideoFeatures:
    """Straight tracks in the given directions in frames of 30x40 (diagonal 50); (0, 0) stands still."""
    way = np.arange(num_frames)[None, :, None] * speed * np.array(directions, np.float32)[:, None]
    return VideoFeatures(
        frames=np.zeros((num_frames, 30, 40, 3), np.uint8),
        tracks=(way + 10).astype(np.float32),
        track_visible=np.ones((len(directions), num_frames), bool),
    )


def fidelity(generated: VideoFeatures, reference: VideoFeatures, name: str = "motion_fidelity") -> float | None:
    return value(name, Features(generated=generated, reference=reference))


def test_fidelity_is_the_mean_of_both_directions():
    right, both = moving((1, 0)), moving((1, 0), (0, 1))
    assert fidelity(right, both) == pytest.approx(0.75) == fidelity(both, right)
    assert fidelity(right, moving((-1, 0))) == pytest.approx(-1)
    assert fidelity(right, moving((0, 1))) == pytest.approx(0)


@pytest.mark.parametrize("name", ["motion_fidelity", "motion_fidelity_upstream"])
@pytest.mark.parametrize("num_frames", [2, 4, 6, 12])
def test_lengths_that_differ_are_a_reason_of_their_own(name: str, num_frames: int):
    apart = Features(generated=moving((1, 0), num_frames=num_frames), reference=moving((1, 0)))
    assert value(name, apart) is None
    reason = METRICS[name].skip_reason(apart)
    assert (
        reason == f"the video has {num_frames} frames, the reference 5: read both by read_clip with one length and size"
    )
    still = Features(generated=moving((1, 0)), reference=moving((0, 0)))
    assert METRICS["motion_fidelity"].skip_reason(still) == "nothing moves in the reference"


def test_fidelity_does_not_pay_for_background():
    reference = moving((1, 0), (0, 0), (0, 0), (0, 0))
    assert fidelity(moving((0, 0), (0, 0)), reference) == 0
    assert fidelity(moving((1, 0), (0, 0)), reference) == pytest.approx(1)
    assert fidelity(moving((1, 0)), moving((0, 0))) is None


def test_fidelity_counts_a_rest_of_one_side_only():
    half = moving((1, 0))
    half.tracks[:, 3:] = half.tracks[:, 2:3]  # two steps, then rest
    assert fidelity(half, half) == pytest.approx(1)
    assert fidelity(half, moving((1, 0))) == pytest.approx(0.5)


def test_fidelity_ignores_hidden_points_and_short_tracklets():
    reference = moving((1, 0))
    wild = moving((1, 0), (0, 1))
    wild.track_visible[1, 2:] = False  # one of four steps seen
    wild.tracks[1, 2:] = np.nan
    assert fidelity(wild, reference) == pytest.approx(1)


def test_fidelity_of_other_lengths_is_a_skip():
    assert fidelity(moving((1, 0), num_frames=4), moving((1, 0))) is None
    assert fidelity(moving((1, 0), num_frames=1), moving((1, 0), num_frames=1)) is None


def test_upstream_subtracts_the_identity_and_looks_one_way():
    assert fidelity(moving((1, 0)), moving((1, 0)), "motion_fidelity_upstream") == pytest.approx(0)
    two = moving((1, 0), (1, 0))
    assert fidelity(two, two, "motion_fidelity_upstream") == pytest.approx(1)
    assert fidelity(two, moving((1, 0), (0, 1)), "motion_fidelity_upstream") == pytest.approx(0.5)
    assert fidelity(moving((1, 0)), moving((-1, 0)), "motion_fidelity_upstream") == pytest.approx(-2)


def test_upstream_is_a_skip_where_the_released_formula_is_nan():
    made = Features(generated=moving((1, 0), (0, 0)), reference=moving((1, 0), (1, 0)))
    assert value("motion_fidelity_upstream", made) is None
    assert "NaN" in METRICS["motion_fidelity_upstream"].skip_reason(made)
    assert fidelity(moving((1, 0)), moving((1, 0), (0, 1)), "motion_fidelity_upstream") is None


def test_upstream_as_the_released_tensor_program():
    import torch

    made = features()
    a, b = (torch.from_numpy(v.tracks).double().diff(dim=1) for v in (made.generated, made.reference))
    a, b = a / a.norm(dim=-1, keepdim=True), b / b.norm(dim=-1, keepdim=True)
    matrix = torch.einsum("atc,btc->abt", a, b).mean(-1) - torch.eye(len(a))
    assert value("motion_fidelity_upstream", made) == pytest.approx(float(matrix.max(1).values.mean()))


def test_dynamic_degree_is_in_diagonals_per_frame():
    made = Features(generated=moving((1, 0), (0, 0)))
    assert value("dynamic_degree", made) == pytest.approx(4 / 50 / 2)
    nothing = {"tracks": np.zeros((0, 5, 2), np.float32), "track_visible": np.zeros((0, 5), bool)}
    assert value("dynamic_degree", spoiled(made, **nothing)) is None


# --------------------------------------------------------------------------------------------------------- embeddings


def test_cosines_are_torchmetrics_pairwise_ones():
    import torch
    from torchmetrics.functional import pairwise_cosine_similarity

    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 6, 8))
    expected = pairwise_cosine_similarity(torch.from_numpy(a), torch.from_numpy(b)).diagonal().numpy()
    assert cosines(a, b) == pytest.approx(expected)
    assert cosines(a, b[0]) == pytest.approx(
        pairwise_cosine_similarity(torch.from_numpy(a), torch.from_numpy(b[:1])).numpy()[:, 0]
    )


def test_cosine_with_nothing_is_zero():
    assert cosines(np.zeros((2, 3)), np.ones((2, 3))).tolist() == [0, 0]


def test_upstream_consistency_does_not_see_another_subject():
    made = still(features())
    other = spoiled(made, image_embeddings=-made.generated.image_embeddings)
    assert value("appearance_consistency_upstream", other) == pytest.approx(1)
    assert value("appearance_consistency", other) == pytest.approx(-1)


def test_one_frame_has_no_consistency_over_time():
    made = Features(generated=features().target, target=features().target)
    assert value("temporal_consistency", made) is None and value("appearance_consistency_upstream", made) is None
    assert value("appearance_consistency", made) == pytest.approx(1)


def test_slow_drift_lowers_the_consistency_of_all_pairs_alone():
    angles = np.linspace(0, np.pi / 2, NUM_FRAMES)
    turning = np.zeros((NUM_FRAMES, 12), np.float32)
    turning[:, 0], turning[:, 1] = np.cos(angles), np.sin(angles)
    made = spoiled(features(), image_embeddings=turning)
    assert value("temporal_consistency_adjacent", made) == pytest.approx(np.cos(np.pi / 16))
    lags = np.arange(1, NUM_FRAMES)
    pairs = ((NUM_FRAMES - lags) * np.cos(lags * np.pi / 16)).sum() / (NUM_FRAMES - lags).sum()
    assert value("temporal_consistency", made) == pytest.approx(pairs) == pytest.approx(0.739, abs=1e-3)


# ------------------------------------------------------------------------------------------------------------ features


def test_misses_are_scores_of_zero_and_what_is_not_a_number():
    scores = np.array([[0, 0.01, 1, np.nan, -1, 1, 1]], np.float32)
    points = np.zeros((1, 7, 2), np.float32)
    points[0, 5, 1], points[0, 6, 0] = np.nan, np.inf
    video = replace(features().target, keypoints=points, keypoint_scores=scores)
    assert detected(video).tolist() == [[False, True, True, False, False, False, False]]


@pytest.mark.parametrize(
    ("field", "array"),
    [
        ("frames", np.zeros((9, 48, 64, 3), np.float32)),
        ("frames", np.zeros((9, 48, 64), np.uint8)),
        ("frames", np.zeros((0, 48, 64, 3), np.uint8)),
        ("image_embeddings", np.zeros((8, 4), np.float32)),
        ("tracks", np.zeros((24, 8, 2), np.float32)),
        ("track_visible", np.zeros((24, 9), np.float32)),
        ("keypoints", np.zeros((9, 7, 3), np.float32)),
        ("keypoint_scores", np.zeros((9, 6), np.float32)),
        ("keypoint_scores", [[0.0]]),
    ],
)
def test_wrong_measurements_are_refused_by_name(field, array):
    with pytest.raises(ValueError, match=field):
        replace(features().generated, **{field: array})


def test_half_a_pair_is_refused():
    with pytest.raises(ValueError, match="tracks and track_visible"):
        replace(features().generated, tracks=None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("keypoints", np.full((1, 9, 7, 2), np.nan, np.float32)),
        ("keypoints", np.zeros((0, 9, 7, 2), np.float32)),
        ("first_scored_frame", 9),
        ("first_settled_frame", 1),
        ("first_settled_frame", 9),
        ("body_size_px", 0.0),
        ("bones", np.array([[0, 7], [1, 2], [3, 4]])),
        ("parts", np.full((9, 48, 64), 3, np.int8)),
        ("counted", np.ones(6, bool)),
    ],
)
def test_wrong_truth_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        replace(features().truth, **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("keypoints", np.zeros((17, 9, 7), np.float32)), ("right", np.ones(3, bool)), ("right", np.zeros(13, bool))],
)
def test_wrong_candidates_are_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        replace(features().candidates, **{field: value})


def test_parts_that_do_not_fit_together_are_refused():
    made = features()
    three = {"keypoints": np.zeros((9, 3, 2), np.float32), "keypoint_scores": np.ones((9, 3))}
    for name, wrong in {
        "target": made.generated,
        "truth": replace(made.truth, frames=made.truth.frames[:, 1:], parts=made.truth.parts[:, 1:]),
        "prompt": np.ones(5, np.float32),
        "perceptual_distance": np.ones(5, np.float32),
        "candidates": Candidates(np.zeros((1, 8, 7, 2), np.float32), np.ones(1, bool)),
        "generated": replace(made.generated, **three),
    }.items():
        with pytest.raises(ValueError, match=name):
            replace(made, **{name: wrong})


def test_value_outside_the_bounds_is_an_error_not_a_number():
    broken = replace(METRICS["dynamic_degree"], formula=lambda f: 1.1)
    with pytest.raises(ArithmeticError, match="dynamic_degree: 1.1"):
        broken.compute(features())
    with pytest.raises(ArithmeticError, match="nan"):
        replace(broken, formula=lambda f: float("nan")).compute(features())

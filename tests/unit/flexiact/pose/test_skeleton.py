"""The linear fit over keypoints, which points are joined, and what a drawn skeleton looks like."""

from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flexiact.media.image import read_image
from flexiact.pose.rtmpose import AP10K_KEYPOINTS, COCO_KEYPOINTS
from flexiact.pose.skeleton import SKELETONS, TRUNKS, draw_skeletons, fit_size, fit_slope, links_of, palette, trunk_of
from flexiact.puppets.world.rigs import BONE_ENDS, KEYPOINTS
from tests.support.goldens import SKELETON_FILE, skeleton_picture

LINKS = ((0, 1), (1, 2))

scales = st.floats(0.2, 5)
offsets = st.floats(-300, 300)


def points(seed: int, count: int = 13) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 64, (count, 2))


def test_puppets_are_drawn_by_their_bones() -> None:
    assert set(map(frozenset, SKELETONS["puppets"])) == set(map(frozenset, BONE_ENDS.values()))


# ---- fit


every_fit = pytest.mark.parametrize("fitted", [fit_slope, partial(fit_slope, axes=(1,)), fit_size])


@every_fit
@given(scales, offsets, offsets, st.integers(0, 10**6), st.integers(2, 20))
@settings(deadline=None)
def test_a_known_transform_is_found_again(fitted, a: float, c: float, d: float, seed: int, count: int) -> None:
    source = points(seed, count)
    assume(source.std(0).min() > 0.5)
    fit = fitted(source, source * a + [c, d])
    np.testing.assert_allclose(fit.scale, a, rtol=1e-6)
    np.testing.assert_allclose(fit.offset, [c, d], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(fit(points(seed + 1)), points(seed + 1) * a + [c, d], rtol=1e-4, atol=1e-3)


@every_fit
@given(st.integers(0, 10**6), st.integers(0, 30))
@settings(deadline=None)
def test_scales_are_above_zero_and_means_meet_whatever_the_pairs(fitted, seed: int, count: int) -> None:
    source, target = points(seed, count), points(seed + 1, count)
    fit = fitted(source, target)
    assert fit.scale > 0 and np.isfinite(fit.offset).all()
    if count:
        np.testing.assert_allclose(fit(source).mean(0), target.mean(0), atol=1e-3)
    else:
        np.testing.assert_array_equal(fit(points(0)), points(0).astype(np.float32))


@given(st.integers(0, 10**6), scales)
@settings(deadline=None)
def test_the_vertical_fit_is_mimicmotion_s(seed: int, a: float) -> None:
    source = points(seed)
    target = source * a + 7 + np.random.default_rng(seed).normal(0, 1, source.shape)
    fit = fit_slope(source, target, axes=(1,))
    slope, offset = np.polyfit(source[:, 1], target[:, 1], 1)
    assume(slope > 1e-3)
    np.testing.assert_allclose([fit.scale, fit.offset[1]], [slope, offset], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(fit.offset[0], (target[:, 0] - slope * source[:, 0]).mean(), rtol=1e-5, atol=1e-5)


def test_a_slope_on_both_axes_is_that_of_least_squares() -> None:
    source = points(3)
    target = source * [2, 0.5] + np.random.default_rng(3).normal(0, 1, source.shape)
    centred = (source - source.mean(0)).ravel()
    slow = np.linalg.lstsq(centred[:, None], (target - target.mean(0)).ravel(), rcond=None)[0]
    np.testing.assert_allclose(fit_slope(source, target).scale, slow[0], rtol=1e-6)


def test_a_turned_body_keeps_its_size_and_loses_its_slope() -> None:
    source, cosine, sine = points(3), 0.5, 0.75**0.5
    turned = 2 * source @ np.array([[cosine, sine], [-sine, cosine]])
    assert fit_size(source, turned).scale == pytest.approx(2)
    assert fit_slope(source, turned).scale == pytest.approx(2 * cosine)


@pytest.mark.parametrize("fitted", [fit_slope, fit_size])
def test_a_scale_that_is_open_or_mirrored_is_1(fitted) -> None:
    one = fitted(np.array([[2.0, 3]]), np.array([[5.0, 5]]))
    assert (one.scale, one.offset) == (1, (3, 2))
    flat = np.array([[3.0, 2], [5, 2], [9, 2]])
    assert fit_slope(flat, flat * 2 + 1, axes=(1,)).scale == fit_slope(flat, -flat).scale == 1
    assert fitted(flat, flat * 2 + 1).scale == pytest.approx(2)


# ---- links


@pytest.mark.parametrize("names", [KEYPOINTS, COCO_KEYPOINTS, AP10K_KEYPOINTS], ids=["puppets", "coco", "ap10k"])
def test_every_point_is_joined_and_no_pair_twice(names: tuple[str, ...]) -> None:
    links = links_of(names)
    assert {end for link in links for end in link} == set(range(len(names)))
    assert len({frozenset(link) for link in links}) == len(links) and all(a != b for a, b in links)
    # In another order the same names are joined.
    swapped = tuple(reversed(names))
    again = {frozenset((swapped[a], swapped[b])) for a, b in links_of(swapped)}
    assert again == {frozenset((names[a], names[b])) for a, b in links}


@pytest.mark.parametrize("names", [KEYPOINTS, COCO_KEYPOINTS, AP10K_KEYPOINTS], ids=["puppets", "coco", "ap10k"])
def test_a_trunk_is_part_of_its_body(names: tuple[str, ...]) -> None:
    chosen = {name for name, rigid in zip(names, trunk_of(names), strict=True) if rigid}
    assert chosen in TRUNKS.values() and 3 <= len(chosen) < len(names)
    assert not any(part in name for name in chosen for part in ("tip", "mid", "wrist", "ankle", "paw", "knee", "elbow"))


def test_unknown_points_are_named() -> None:
    assert set(SKELETONS) == {"puppets", "coco", "ap10k"}
    with pytest.raises(ValueError, match="keypoint_names: no skeleton joins tentacle"):
        links_of(("tentacle",))


# ---- drawing


def test_a_line_covers_what_lies_within_half_its_thickness_and_nothing_else() -> None:
    ends = np.array([[[20.0, 30.0], [90.0, 70.0]]])
    (frame,) = draw_skeletons(ends, np.ones((1, 2)), ((0, 1),), (128, 128))  # 4 px thick, joints 3 px in radius
    line, start, end = palette(3)
    y, x = np.mgrid[:128, :128] + 0.5
    along = np.clip(((x - 20) * 70 + (y - 30) * 40) / (70**2 + 40**2), 0, 1)
    distance = np.hypot(x - 20 - along * 70, y - 30 - along * 40)
    to_ends = [np.hypot(x - px, y - py) for px, py in ends[0]]
    clear = np.minimum(*to_ends) > 5
    assert (frame[(distance < 1) & clear] == line).all()
    assert (frame[(distance > 4) & clear] == 0).all()
    assert (frame[to_ends[0] < 2] == start).all() and (frame[to_ends[1] < 2] == end).all()


def test_brightness_is_the_score_and_a_limb_s_the_product() -> None:
    places = np.array([[[10.0, 10.0], [50.0, 10.0], [50.0, 50.0]]])
    (sure,) = draw_skeletons(places, np.ones((1, 3)), LINKS, (64, 64))
    (less,) = draw_skeletons(places, np.array([[1.0, 0.5, 0.0]]), LINKS, (64, 64))
    np.testing.assert_allclose(less[10, 30], sure[10, 30] * 0.5, atol=1)
    np.testing.assert_allclose(less[9, 50], sure[9, 50] * 0.5, atol=1)
    assert sure[30, 50].any() and not less[30, 50].any() and not less[50, 50].any()
    assert not draw_skeletons(places, np.zeros((1, 3)), LINKS, (64, 64)).any()


@given(st.lists(st.floats(-1e6, 1e6), min_size=6, max_size=6), st.lists(st.floats(-2, 2), min_size=3, max_size=3))
@settings(deadline=None, max_examples=40)
def test_any_place_can_be_drawn_and_input_stays_as_it_is(places: list[float], scores: list[float]) -> None:
    keypoints, sure = np.array(places, np.float32).reshape(1, 3, 2), np.array([scores], np.float32)
    kept = keypoints.copy(), sure.copy()
    frames = draw_skeletons(keypoints, sure, LINKS, (16, 24))
    assert frames.shape == (1, 16, 24, 3) and frames.dtype == np.uint8
    np.testing.assert_array_equal(keypoints, kept[0])
    np.testing.assert_array_equal(sure, kept[1])


def test_colours_differ() -> None:
    for count in (3, 25, 36):
        colours = palette(count).astype(int)
        apart = np.abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(count, dtype=int)
        assert apart.min() > 20


@pytest.mark.golden
def test_a_skeleton_is_drawn_as_stored() -> None:
    """A change here means other control videos: raise `DRAWING_VERSION`, train control weights again, store anew."""
    off = np.abs(read_image(SKELETON_FILE).astype(int) - skeleton_picture().astype(int))
    assert off.max() <= 40 and off.mean() < 0.2  # room for another rounding at edges

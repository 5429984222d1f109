"""What every metric promises. Test ids name the metric and the promise."""

import importlib
import json
import math
import pkgutil
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import metrics
from metrics import BY_FILE, METRICS, Candidates, Features, Metric, Source, Truth, VideoFeatures
from metrics.metric import INVARIANCES, MEASURED_BY
from tests.support import slow_metrics
from tests.support.goldens import METRICS_FILE, metric_value
from tests.support.metric_features import NUM_FRAMES, corrupted, features, leaking, perfect, still

NOT_METRICS = {"features", "metric", "perception", "tracking"}

every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())


# ---------------------------------------------------------------------------------------------------------- the table


def test_every_module_has_a_line_in_the_table():
    listed = [*METRICS.values(), *BY_FILE.values()]
    for info in pkgutil.walk_packages(metrics.__path__, "metrics."):
        own = [value for value in vars(importlib.import_module(info.name)).values() if isinstance(value, Metric)]
        assert all(metric in listed for metric in own), f"{info.name}: a Metric is in no table"
        if not info.ispkg and info.name.removeprefix("metrics.") not in NOT_METRICS:
            assert own, f"{info.name} has no Metric; if it is not a metric, name it in NOT_METRICS"


def test_table_is_keyed_by_name():
    assert all(name == metric.name for name, metric in [*METRICS.items(), *BY_FILE.items()])


def test_reading_the_table_loads_no_network_library():
    code = "import sys, metrics, metrics.perception; sys.exit(bool({'torch', 'open_clip', 'lpips'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(metrics.__file__).parents[1], check=False)
    assert done.returncode == 0


@every_metric
def test_metadata_is_complete(metric):
    low, high = metric.bounds
    assert metric.version >= 1 and metric.summary and math.isfinite(low) and math.isfinite(high) and low < high
    assert metric.backend in MEASURED_BY
    assert set(metric.needs) <= {field.name for field in fields(Features)} and "generated" in metric.needs
    assert set(metric.invariances) <= set(INVARIANCES)
    assert (metric.best_when is None) == (metric.best_value is None)
    assert (metric.static == "undefined") <= bool(metric.undefined)
    if metric.higher_is_better is not None and metric.best_value is not None:
        assert metric.best_value == (high if metric.higher_is_better else low)


# ---------------------------------------------------------------------------------------------------------- the values


@every_metric
def test_formula_is_pure_and_its_value_inside_the_bounds(metric):
    for seed in range(5):
        made = features(seed, num_answers=1 + seed % 3)
        before = {path: array.tobytes() for path, array in _arrays(made)}
        for _, array in _arrays(made):
            array.setflags(write=False)
        value = metric.compute(made)
        assert isinstance(value, float) and metric.bounds[0] <= value <= metric.bounds[1]
        assert value == metric.compute(made)
        assert before == {path: array.tobytes() for path, array in _arrays(made)}


@pytest.mark.parametrize(
    "metric", [m for m in METRICS.values() if m.best_when], ids=lambda m: f"{m.name}-{m.best_when}"
)
def test_best_on_identity(metric):
    assert metric.compute(perfect(features(), metric.best_when)) == pytest.approx(metric.best_value, abs=1e-5)


@pytest.mark.parametrize(
    "metric", [m for m in METRICS.values() if m.higher_is_better is not None], ids=lambda m: m.name
)
def test_graded_corruption_never_improves(metric):
    start, spoil = features(), corrupted
    if "leakage" in metric.name:  # what it must see is the reference; noise is not that
        places = {"layout_leakage": start.source.keypoints, "viewpoint_leakage": start.source.seen_from_there}
        start = perfect(start, metric.best_when or "truth")

        def spoil(made, level):
            return leaking(made, level / 2, places.get(metric.name))
    elif metric.best_when:
        start = perfect(start, metric.best_when)
    elif metric.name.startswith("text_similarity"):
        right = np.repeat(getattr(start, metric.needs[1])[None], NUM_FRAMES, 0)
        start = replace(start, generated=replace(start.generated, image_embeddings=right))
    else:  # the released formula gives nothing for the partner with the same index
        start = replace(start, generated=replace(start.reference, tracks=np.roll(start.reference.tracks, 1, 0)))
    sign = 1 if metric.higher_is_better else -1
    values = [sign * metric.compute(spoil(start, level)) for level in (0, 0.1, 0.25, 0.5, 1, 2)]
    loss = values[0] - min(values)
    assert loss > 0
    # By chance a level may undo a little of what the level before it spoiled, never more.
    assert all(later <= earlier + 0.05 * loss for earlier, later in zip(values, values[1:], strict=False)), values


@every_metric
def test_still_video_has_its_documented_value(metric):
    value = metric.compute(still(features()))
    if metric.static == "undefined":
        assert value is None
    elif metric.static == "varies":
        assert value is not None
    else:
        assert value == pytest.approx(metric.static, abs=1e-6)


@every_metric
def test_equals_an_independent_slow_implementation(metric):
    for seed in range(2):
        made = features(seed, num_answers=1 + seed)
        tolerance = {"Delta E": 0.05, "grey levels": 0.01}.get(metric.unit, 1e-5)
        assert metric.compute(made) == pytest.approx(getattr(slow_metrics, metric.name)(made), abs=tolerance)


@every_metric
def test_missing_features_are_a_skip_with_a_reason(metric):
    made = features()
    assert metric.missing(made) == () and metric.skip_reason(made) == ""
    for need in metric.needs:
        lacking = replace(made, **{need: None})
        assert metric.compute(lacking) is None and metric.skip_reason(lacking) == f"missing: {need}"
        field = MEASURED_BY[metric.backend]
        if need in ("generated", "target", "reference") and field != "frames":
            pair = {"tracks": ("tracks", "track_visible"), "keypoints": ("keypoints", "keypoint_scores")}
            part = replace(getattr(made, need), **dict.fromkeys(pair.get(field, (field,))))
            lacking = replace(made, **{need: part})
            assert metric.compute(lacking) is None and metric.skip_reason(lacking) == f"missing: {need}.{field}"


@pytest.mark.golden
@every_metric
def test_golden_value_changes_only_with_the_version(metric):
    stored = json.loads(METRICS_FILE.read_text())
    value = metric_value(metric)
    assert stored[metric.name]["version"] == metric.version, "store the new version's value"
    assert value == pytest.approx(stored[metric.name]["value"], abs=1e-6), "another value demands another version"


# -------------------------------------------------------------------------------------------------------- invariances


def _arrays(value, path=""):
    if isinstance(value, np.ndarray):
        yield path, value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _arrays(getattr(value, field.name), f"{path}.{field.name}")


def _keypoint_order(f):
    order = np.array([3, 0, 6, 5, 1, 4, 2])
    place = np.argsort(order)
    videos = {
        name: replace(v, keypoints=v.keypoints[:, order], keypoint_scores=v.keypoint_scores[:, order])
        for name, v in (("generated", f.generated), ("target", f.target), ("reference", f.reference))
    }
    truth = replace(
        f.truth,
        keypoints=f.truth.keypoints[:, :, order],
        target_keypoints=f.truth.target_keypoints[order],
        counted=f.truth.counted[order],
        bones=place[f.truth.bones],
    )
    candidates = replace(f.candidates, keypoints=f.candidates.keypoints[:, :, order])
    return replace(f, **videos, truth=truth, candidates=candidates, source=_moved(f.source, lambda p: p[:, order]))


def _moved(source, change, body=lambda b: b):
    return Source(change(source.keypoints), body(source.body), change(source.seen_from_there))


def _shifted(f):
    by = np.array([3, -2], np.float32)
    generated = replace(f.generated, keypoints=f.generated.keypoints + by)
    return replace(f, generated=generated, target=replace(f.target, keypoints=f.target.keypoints + by))


def _larger(f):
    origin = f.target.keypoints
    return replace(f, generated=replace(f.generated, keypoints=origin + 1.7 * (f.generated.keypoints - origin)))


def _doubled(f):
    def double(frames):
        return frames.repeat(2, 1).repeat(2, 2)

    videos = {
        name: replace(v, frames=double(v.frames), keypoints=2 * v.keypoints, tracks=2 * v.tracks)
        for name, v in (("generated", f.generated), ("target", f.target), ("reference", f.reference))
    }
    truth = replace(
        f.truth,
        keypoints=2 * f.truth.keypoints,
        target_keypoints=2 * f.truth.target_keypoints,
        frames=double(f.truth.frames),
        parts=double(f.truth.parts),
        bone_radii_px=2 * f.truth.bone_radii_px,
        body_size_px=2 * f.truth.body_size_px,
    )
    candidates = replace(f.candidates, keypoints=2 * f.candidates.keypoints)
    return replace(f, **videos, truth=truth, candidates=candidates, source=_moved(f.source, lambda p: 2 * p, double))


def _with_tracks(f, change):
    tracks, visible = change(f.generated.tracks, f.generated.track_visible)
    return replace(f, generated=replace(f.generated, tracks=tracks, track_visible=visible))


def _rotated(f):
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((12, 12)))[0].astype(np.float32)
    videos = {
        name: replace(v, image_embeddings=v.image_embeddings @ turn)
        for name, v in (("generated", f.generated), ("target", f.target), ("reference", f.reference))
    }
    return replace(f, **videos, prompt=f.prompt @ turn, prompt_cut=f.prompt_cut @ turn)


def _in_order(f, order):
    v = f.generated
    generated = VideoFeatures(
        v.frames[order],
        v.image_embeddings[order],
        v.tracks[:, order],
        v.track_visible[:, order],
        v.keypoints[order],
        v.keypoint_scores[order],
    )
    return replace(f, generated=generated)


TRANSFORMS = {
    "keypoint_order": _keypoint_order,
    "answer_order": lambda f: replace(f, truth=replace(f.truth, keypoints=f.truth.keypoints[::-1])),
    "generated_shift": _shifted,
    "generated_amplitude": _larger,
    "resolution": _doubled,
    "track_order": lambda f: _with_tracks(f, lambda t, v: (t[::-1], v[::-1])),
    "track_repetition": lambda f: _with_tracks(f, lambda t, v: (np.repeat(t, 2, 0), np.repeat(v, 2, 0))),
    "track_shift": lambda f: _with_tracks(f, lambda t, v: (t + np.float32(5), v)),
    "track_speed": lambda f: _with_tracks(f, lambda t, v: (t[:, :1] + np.float32(1.5) * (t - t[:, :1]), v)),
    "unseen_positions": lambda f: _with_tracks(f, lambda t, v: (np.where(v[..., None], t, np.float32(np.nan)), v)),
    "embedding_rotation": _rotated,
    "frame_order": lambda f: _in_order(f, np.array([4, 2, 0, 8, 6, 7, 5, 3, 1])),
    "time_reversal": lambda f: _in_order(f, np.arange(NUM_FRAMES)[::-1]),
}


def test_every_invariance_is_tested():
    assert set(TRANSFORMS) == set(INVARIANCES) == {name for m in METRICS.values() for name in m.invariances}


@every_metric
def test_the_invariances_promised_hold(metric):
    for seed in range(2):
        made = features(seed, num_answers=3)
        value = metric.compute(made)
        assert value is not None
        found = {promise: metric.compute(TRANSFORMS[promise](made)) for promise in metric.invariances}
        assert found == pytest.approx(dict.fromkeys(metric.invariances, value), abs=1e-4)


# ------------------------------------------------------------------------------------------------------------ borders


@st.composite
def borders(draw) -> Features:
    """Features at the edge of what is allowed: one frame, no tracks, nothing found, nothing counted, no movement."""
    num_frames, num_points, num_tracks = draw(st.integers(1, 6)), draw(st.integers(1, 4)), draw(st.integers(0, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.0, 1e-20, 1.0, 1e4]))

    def floats(*shape: int) -> np.ndarray:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    def spoiled(array: np.ndarray) -> np.ndarray:
        bad = draw(st.sampled_from([0.0, 0.5, 1.0]))
        value = draw(st.sampled_from([np.nan, np.inf, -1.0]))
        return np.where(rng.random(array.shape) < bad, np.float32(value), array)

    def video(length: int) -> VideoFeatures:
        return VideoFeatures(
            frames=rng.integers(0, 256, (length, 12, 13, 3), np.uint8) * np.uint8(draw(st.booleans())),
            image_embeddings=floats(length, 3),
            tracks=spoiled(floats(num_tracks, length, 2)),
            track_visible=rng.random((num_tracks, length)) < draw(st.sampled_from([0.0, 0.8, 1.0])),
            keypoints=spoiled(6 + floats(length, num_points, 2)),
            keypoint_scores=spoiled(rng.random((length, num_points)).astype(np.float32)),
        )

    first = draw(st.integers(0, num_frames - 1))
    truth = Truth(
        keypoints=6 + floats(draw(st.integers(1, 3)), num_frames, num_points, 2),
        target_keypoints=6 + floats(num_points, 2),
        counted=rng.random(num_points) < draw(st.sampled_from([0.0, 0.5, 1.0])),
        first_scored_frame=first,
        first_settled_frame=draw(st.integers(first, num_frames - 1)),
        frames=rng.integers(0, 256, (num_frames, 12, 13, 3), np.uint8),
        parts=rng.integers(-1, 2, (num_frames, 12, 13)).astype(np.int8),
        bones=rng.integers(0, num_points, (2, 2)),
        bone_radii_px=np.abs(floats(2)),
        body_size_px=3.0,
    )
    length = draw(st.sampled_from([1, num_frames]))
    source = Source(
        keypoints=spoiled(6 + floats(length, num_points, 2)),
        body=rng.random((length, 12, 13)) < draw(st.sampled_from([0.0, 0.5])),
        seen_from_there=6 + floats(length, num_points, 2),
    )
    return Features(
        generated=video(num_frames),
        target=video(1),
        reference=video(length),
        source=source,
        prompt=floats(3),
        prompt_cut=floats(3),
        truth=truth,
        perceptual_distance=np.abs(rng.standard_normal(num_frames)).astype(np.float32),
        candidates=Candidates(spoiled(6 + floats(3, num_frames, num_points, 2)), np.array([True, False, False])),
    )


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(borders())
def test_borders_give_a_value_inside_the_bounds_or_a_skip_with_a_reason(made):
    for metric in METRICS.values():
        value = metric.compute(made)
        if value is None:
            assert metric.skip_reason(made)
        else:
            assert math.isfinite(value) and metric.bounds[0] <= value <= metric.bounds[1]

"""Measure a run by features that another tool found: point tracks, keypoints, masks, or embeddings of frames.

The metrics are those of the suite that need nothing else, and those of `BY_FILE`, which only masks can give. They get
names of their own, so that no value of another tool stands under one of the suite's. Keypoints are judged by the truth,
so they have to be the puppets' own, in their order.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from benchmark.exchange.feature_files import FeatureFolder
from benchmark.exchange.imports import Scored
from benchmark.planning.plan import plan
from benchmark.planning.selection import UsageError
from benchmark.stages.scoring import evaluated
from benchmark.store.folder import RunFolder
from benchmark.store.gather import sample_rows
from benchmark.store.schema.rows import SampleRow
from benchmark.store.videos import read_stored
from benchmark.suites.case import Format, Stages
from benchmark.suites.puppets import load_suite
from benchmark.suites.truth import render_settings
from flexiact.media.image import read_image
from flexiact.media.video import read_video
from flexiact.terminal.cli import one_line
from metrics import BY_FILE, METRICS
from metrics.features import Features, VideoFeatures
from metrics.metric import Metric

_BACKENDS = {"tracks": "tracker", "keypoints": "pose", "masks": "mask", "image_embeddings": "image_encoder"}
_INPUTS = ("reference", "target")
_TRUTH = ("truth", "candidates", "source")


def metrics_of(folder: FeatureFolder) -> dict[str, Metric]:
    """Metrics that need only these features, and the truth for keypoints, by the names that they get."""
    suffix = re.sub("[^a-z0-9]+", "_", folder.producer.lower()).strip("_")
    return {
        f"{name}_by_{suffix}": metric
        for name, metric in (METRICS | BY_FILE).items()
        if metric.backend == _BACKENDS[folder.kind] and set(metric.needs) <= {"generated", *_INPUTS, *_TRUTH}
    }


def entries_of(folder: FeatureFolder) -> dict[str, dict[str, Any]]:
    """Entries of the metrics in run.json."""
    return {
        name: {
            **{field: getattr(metric, field) for field in ("version", "unit", "higher_is_better")},
            "bounds": list(metric.bounds),
            "needs": list(metric.needs),
            "summary": f"{metric.summary}; {folder.kind.replace('_', ' ')} of {folder.producer}",
            "headline": False,
            "backend": folder.producer,
        }
        for name, metric in metrics_of(folder).items()
    }


def scores_of(run: RunFolder, folder: FeatureFolder) -> dict[str, Scored]:
    """Scores of every video that has features, by key, as the run stores them.

    Raises:
        UsageError: If a file fits no video of the run, is missing or does not fit its frames.
        DamagedVideo: If a video of the run is not what was stored.
    """
    described = run.described()
    cells = (cell for cell in plan(described) if cell.key in folder.keys)
    rows = {row.key: row for row in sample_rows(run, cells) if row.status == "ok"}
    strange = sorted(folder.keys - rows.keys())
    if strange:
        raise UsageError(f"{folder.producer}: {strange[0]} is of no video of this run")
    wanted = {name for metric in metrics_of(folder).values() for name in metric.needs}
    stages = _stages(described) if wanted & set(_TRUTH) else None

    @lru_cache(maxsize=16)
    def about(case_id: str) -> Mapping[str, Any]:
        found: dict[str, Any] = {name: _input(run, folder, case_id, name) for name in _INPUTS if name in wanted}
        return found | ({name: getattr(stages[case_id], name) for name in _TRUTH} if stages else {})

    found = {key: rows[key] for key in sorted(folder.keys)}
    return {key: (row.video_digest, _scores(run, folder, row, about(row.case_id))) for key, row in found.items()}


def _stages(run: Mapping[str, Any]) -> Stages:
    """Right answers of a run's cases.

    Raises:
        UsageError: If nobody knows them, or this code would show others.
    """
    if not run["truth"].get("known", True):
        raise UsageError("keypoints: are judged by the right answer, which nobody knows of real material")
    suite, form = load_suite(run["suite"]), run["backbone"]
    if (suite.digest, render_settings()) != (run["suite_digest"], run["truth"]):
        raise UsageError(f"keypoints: suite {suite.name} has other right answers now than when the run was made")
    cases = {case.case_id: case for case in suite.chosen(run["cases"])}
    return Stages(cases, Format(*(form[name] for name in ("num_frames", "height", "width", "fps"))))


def _input(run: RunFolder, folder: FeatureFolder, case_id: str, name: str) -> VideoFeatures:
    place = f"inputs/{case_id}/{name}"
    if name == "target":
        return folder.of(place, read_image(run.path / f"{place}.png")[None])
    return folder.of(place, read_video(run.path / f"{place}.mkv").frames)


def _scores(run: RunFolder, folder: FeatureFolder, row: SampleRow, about: Mapping[str, Any]) -> dict[str, Any]:
    assert row.video is not None
    made = folder.of(row.video.removesuffix(".mkv"), read_stored(run.path / row.video, row).frames)
    try:
        features = Features(generated=made, **about)
    except ValueError as error:
        raise UsageError(f"{folder.producer}: {row.video}: {one_line(error)}") from error
    return {
        name: {"version": metric.version, "backend": folder.producer, **evaluated(metric, features)}
        for name, metric in metrics_of(folder).items()
    }

"""Measure a run by features that another tool found: point tracks or embeddings of frames, as .npz files.

The folder mirrors the run: `videos/XX/KEY.npz`, where XX are KEY's first two digits, `inputs/CASE_ID/reference.npz` and
`inputs/CASE_ID/target.npz`. A file holds `producer`, the tool's name and version as a text, and either `tracks`
(floating [N, T, 2], pixels) with `track_visible` (bool [N, T]), or `image_embeddings` (floating [T, D], unit norm). The
metrics are those of the suite that need nothing else; they get names of their own, so that no value of another tool
stands under one of the suite's.
"""

import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.plan import plan
from benchmark.scoring import evaluated
from benchmark.selection import UsageError
from benchmark.store.folder import RunFolder
from benchmark.store.gather import sample_rows
from benchmark.store.schema.rows import SampleRow
from benchmark.store.videos import read_stored
from flexiact.cli import one_line
from flexiact.media.image import read_image
from flexiact.media.video import read_video
from metrics import METRICS
from metrics.features import Features, VideoFeatures
from metrics.metric import Metric

KINDS = {"tracks": ("tracks", "track_visible"), "image_embeddings": ("image_embeddings",)}
"""Arrays of each kind of features."""

MOST_MIB = 256
"""Size of a file's arrays from which on it is refused."""

_BACKENDS = {"tracks": "tracker", "image_embeddings": "image_encoder"}
_INPUTS = ("reference", "target")


class FeatureFolder:
    """Features of a run's videos, of one kind and by one producer.

    Args:
        path: Folder of the files.

    Attributes:
        producer: Name and version of the tool.
        kind: Name in `KINDS`.
        keys: Keys of the videos that have features.

    Raises:
        UsageError: If the folder has no file, or one that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        files = sorted(path.glob("videos/*/*.npz"))
        if not files:
            raise UsageError(f"{path}: holds no videos/XX/KEY.npz")
        content = _arrays(files[0])
        self.producer, self.kind = _producer(files[0], content), _kind(files[0], content)
        self.keys = {file.stem for file in files}

    def of(self, name: str, frames: np.ndarray) -> VideoFeatures:
        """Features of a video or image.

        Args:
            name: Path in the run without its suffix.
            frames: Frames, uint8 [T, H, W, 3].

        Raises:
            UsageError: If the file is missing, of another producer or kind, or does not fit the frames.
        """
        file = self._path / f"{name}.npz"
        content = _arrays(file)
        if (_producer(file, content), _kind(file, content)) != (self.producer, self.kind):
            raise UsageError(f"{file}: is not {self.kind} of {self.producer} as the others are")
        try:
            return VideoFeatures(frames=frames, **{field: content[field] for field in KINDS[self.kind]})
        except ValueError as error:
            raise UsageError(f"{file}: {one_line(error)}") from error


def metrics_of(folder: FeatureFolder) -> dict[str, Metric]:
    """Metrics that need only these features, by the names that they get."""
    suffix = re.sub("[^a-z0-9]+", "_", folder.producer.lower()).strip("_")
    return {
        f"{name}_by_{suffix}": metric
        for name, metric in METRICS.items()
        if metric.backend == _BACKENDS[folder.kind] and set(metric.needs) <= {"generated", *_INPUTS}
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


def scores_of(run: RunFolder, folder: FeatureFolder) -> dict[str, dict[str, Any]]:
    """Scores of every video that has features, by key and metric, as the run stores them.

    Raises:
        UsageError: If a file fits no video of the run, is missing or does not fit its frames.
        DamagedVideo: If a video of the run is not what was stored.
    """
    rows = {key: row for key, row in sample_rows(run, plan(run.described())).items() if row.status == "ok"}
    strange = sorted(folder.keys - rows.keys())
    if strange:
        raise UsageError(f"{folder.producer}: {strange[0]}.npz is of no video of this run")
    wanted = {name for metric in metrics_of(folder).values() for name in metric.needs}

    @lru_cache(maxsize=16)
    def inputs(case_id: str) -> Mapping[str, VideoFeatures]:
        return {name: _input(run, folder, case_id, name) for name in _INPUTS if name in wanted}

    return {key: _scores(run, folder, rows[key], inputs(rows[key].case_id)) for key in sorted(folder.keys)}


def _input(run: RunFolder, folder: FeatureFolder, case_id: str, name: str) -> VideoFeatures:
    place = f"inputs/{case_id}/{name}"
    if name == "target":
        return folder.of(place, read_image(run.path / f"{place}.png")[None])
    return folder.of(place, read_video(run.path / f"{place}.mkv").frames)


def _scores(
    run: RunFolder, folder: FeatureFolder, row: SampleRow, inputs: Mapping[str, VideoFeatures]
) -> dict[str, Any]:
    assert row.video is not None
    made = folder.of(row.video.removesuffix(".mkv"), read_stored(run.path / row.video, row).frames)
    features = Features(generated=made, target=inputs.get("target"), reference=inputs.get("reference"))
    return {
        name: {"version": metric.version, "backend": folder.producer, **evaluated(metric, features)}
        for name, metric in metrics_of(folder).items()
    }


def _arrays(file: Path) -> Mapping[str, np.ndarray]:
    """Arrays of a file; nothing in it is unpickled."""
    try:
        _check_size(file)
        with np.load(file, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:  # each damage has its own
        raise UsageError(f"{file}: cannot be read ({one_line(error)})") from error


def _check_size(file: Path) -> None:
    with zipfile.ZipFile(file) as content:
        size = sum(member.file_size for member in content.infolist())
    if size > MOST_MIB * 2**20:
        raise ValueError(f"its arrays take more than {MOST_MIB} MiB")


def _producer(file: Path, content: Mapping[str, np.ndarray]) -> str:
    found = content.get("producer")
    if found is None or found.dtype.kind != "U" or found.size != 1 or not str(found.item()).strip():
        raise UsageError(f"{file}: producer: expected a text with the tool's name and version")
    return str(found.item())


def _kind(file: Path, content: Mapping[str, np.ndarray]) -> str:
    held = [kind for kind, fields in KINDS.items() if set(fields) <= content.keys()]
    if len(held) != 1:
        expected: Iterable[str] = (" and ".join(fields) for fields in KINDS.values())
        raise UsageError(f"{file}: expected either {' or '.join(expected)}")
    return held[0]

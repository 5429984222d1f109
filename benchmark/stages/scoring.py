"""Measure the videos: features once per video digest, then pure formulas. Scores are one stored object per video."""

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from benchmark.planning.keys import key
from benchmark.planning.plan import Cell
from benchmark.store.errors import error_text
from benchmark.store.folder import RunFolder, StoreError
from benchmark.store.gather import stored_scores, write_scores
from benchmark.store.schema.rows import FEATURES_VERSION, SampleRow
from benchmark.store.videos import DamagedVideo, read_stored
from benchmark.suites.case import Stages
from benchmark.suites.file_cases import NO_TRUTH
from flexiact.media.seals import SealError, check_tensors, sealed_tensors
from flexiact.media.video import frames_digest
from flexiact.task import Video
from metrics.appearance.text_similarity import UPSTREAM_CHARACTERS
from metrics.features import Features, VideoFeatures
from metrics.metric import Metric
from metrics.perception import Perception

_FIELDS = ("image_embeddings", "tracks", "track_visible", "keypoints", "keypoint_scores")
_FEATURE_BACKENDS = ("image_encoder", "tracker", "pose")
_TEXTS_KEPT = 4_096  # embeddings of some 2 KiB
_PUPPET_POSE = "the shipped pose judge knows puppets alone"


class Scorer:
    """Computes and stores the scores of one run's videos."""

    def __init__(
        self,
        folder: RunFolder,
        stages: Stages,
        perception: Perception,
        metrics: Mapping[str, Metric],
        retry_failed: bool = False,
    ) -> None:
        self._folder = folder
        self._stages = stages
        self._perception = perception
        self._metrics = metrics
        self.retry_failed = retry_failed
        self._case_features = lru_cache(maxsize=16)(self._read_case_features)
        self._text = lru_cache(maxsize=_TEXTS_KEPT)(perception.embed_text)

    def missing(self, row: SampleRow, scores: Mapping[str, Any] | None = None) -> list[str]:
        """Names of the metrics not yet computed on this video, in their current version and with the current backend.

        If failures are to be retried, metrics that failed on an existing video are among them. The stored scores of the
        video are read unless they are given.
        """
        scores = stored_scores(self._folder, row) if scores is None else scores
        return [name for name, metric in self._metrics.items() if not self._done(scores.get(name, {}), metric, row)]

    def score(self, cell: Cell, row: SampleRow) -> None:
        """Compute and store the missing metrics; one that fails is stored as failed and the others continue.

        Raises:
            DamagedVideo: If the stored video is not that of the row; nothing is stored then.
        """
        before = stored_scores(self._folder, row)
        missing = self.missing(row, before)
        if not missing:
            return
        write_scores(self._folder, row, {**before, **self._entries(cell, row, missing)})

    def _done(self, entry: Mapping[str, Any], metric: Metric, row: SampleRow) -> bool:
        if self.retry_failed and row.status == "ok" and entry.get("status") == "failed":
            return False
        measured = metric.version, backend_of(metric, self._perception.backends)
        return (entry.get("version"), entry.get("backend")) == measured

    def _entries(self, cell: Cell, row: SampleRow, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        features, error = None, row.error
        if row.status == "ok":
            try:
                features = self._features(cell, row)
            except (DamagedVideo, StoreError):  # neither is a property of the video
                raise
            except Exception as problem:  # one video that cannot be seen must not stop the scoring of the others
                error = error_text(problem)
        entries = {}
        for name in names:
            metric = self._metrics[name]
            entry = {"version": metric.version, "backend": backend_of(metric, self._perception.backends)}
            if features is None:
                status = "skipped" if row.status == "skipped" else "failed"
                entries[name] = entry | {"status": status, "value": None, "error": error}
            else:
                entries[name] = entry | evaluated(metric, features)
        return entries

    def _features(self, cell: Cell, row: SampleRow) -> Features:
        assert row.video is not None
        return self.features(cell.case_id, read_stored(self._folder.path / row.video, row))

    def features(self, case_id: str, video: Video) -> Features:
        """Features of a video for a case; measurements are stored in the run directory, and read if they are there."""
        target, reference = self._case_features(case_id)
        shown, prompt = self._stages[case_id], self._stages.cases[case_id].prompt
        truth = shown.truth
        distance = None if truth is None else self._perception.perceptual_distance(video.frames, truth.frames)
        return Features(
            generated=self._described(video),
            target=target,
            reference=reference,
            prompt=self._text(prompt),
            prompt_cut=self._text(prompt[:UPSTREAM_CHARACTERS]),
            truth=truth,
            perceptual_distance=distance,
            candidates=shown.candidates,
            source=shown.source,
        )

    def _read_case_features(self, case_id: str) -> tuple[VideoFeatures, VideoFeatures]:
        staged = self._stages[case_id]
        target = Video(staged.target[None], staged.reference.fps)
        return self._described(target), self._described(staged.reference)

    def _described(self, video: Video) -> VideoFeatures:
        """Features of a video; read from disk if the same networks have already seen the same frames."""
        name = key(
            "features",
            {
                "frames": frames_digest(video),
                "fps": video.fps,
                "version": FEATURES_VERSION,
                "backends": {name: self._perception.backends[name] for name in _FEATURE_BACKENDS},
            },
        )
        path = self._folder.file("features", f"{name}.safetensors")
        try:
            content = path.read_bytes()
            check_tensors(content)
            return VideoFeatures(frames=video.frames, **load(content))
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StoreError(f"{path}: cannot be read ({error.strerror or error})") from error
        except (SafetensorError, SealError, TypeError, ValueError):
            self._folder.damaged(path)
        features = self._perception.describe(video)
        found = {field: getattr(features, field) for field in _FIELDS}
        arrays = {field: np.ascontiguousarray(array) for field, array in found.items() if array is not None}
        self._folder.write_bytes(path, sealed_tensors(save(arrays)))
        return features


def evaluated(metric: Metric, features: Features) -> dict[str, Any]:
    """Status, value and error of a metric: skipped if undefined here, failed if it raises or gives no finite value."""
    try:
        value = metric.compute(features)
        if value is None:
            return {"status": "skipped", "value": None, "error": _why_skipped(metric, features)}
    except Exception as error:  # an error in one formula must not stop the others
        return {"status": "failed", "value": None, "error": error_text(error)}
    if not math.isfinite(value):
        return {"status": "failed", "value": None, "error": f"the value is {value}"}
    return {"status": "ok", "value": float(value), "error": None}


def _why_skipped(metric: Metric, features: Features) -> str:
    if features.truth is not None or "truth" not in metric.needs:
        return metric.skip_reason(features)
    return f"{NO_TRUTH}; {_PUPPET_POSE}" if metric.backend == "pose" else NO_TRUTH


def backend_of(metric: Metric, backends: Mapping[str, str]) -> str:
    """Name of the network that measures a metric; "none" if there is none (then the metric is skipped)."""
    name = backends[metric.backend]
    return "none" if name.startswith("none") else name  # the reason may hold paths of this machine

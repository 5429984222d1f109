"""The rows of the two tables: what was made, and what was measured on it."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "failed", "skipped"]
"""A failure, a skip and a value are three different things, and none of them is 0.0."""

SampleStatus = Literal[Status, "missing"]
"""A planned video that was not made yet is missing."""


@dataclass(frozen=True)
class SampleRow:
    """One planned video, or the reason why there is none.

    Attributes:
        key: names the video.
        fit_key: names the fit it was made with; None for bounds.
        method: name of the method or bound.
        method_version: of the method's numbers.
        backbone: name of the backbone.
        backbone_revision: of its weights.
        case_id: of the case.
        seed: of all noise.
        status: "ok" if there is a video, "missing" if it was not made yet.
        error: one line when there is none.
        video: path of the lossless file, relative to the run directory.
        video_digest: SHA-256 of the decoded frames.
        fit_s: wall time of the fit, shared by all videos with this `fit_key`.
        transfer_s: wall time of the transfer.
        peak_memory_gib: the larger of the fit's and the transfer's peak; see `benchmark.measure.Cost`.
        action_mib: size of what the fit learned.
    """

    key: str
    fit_key: str | None
    method: str
    method_version: int
    backbone: str
    backbone_revision: str
    case_id: str
    seed: int
    status: SampleStatus
    error: str | None = None
    video: str | None = None
    video_digest: str | None = None
    fit_s: float | None = None
    transfer_s: float | None = None
    peak_memory_gib: float | None = None
    action_mib: float | None = None


@dataclass(frozen=True)
class ScoreRow:
    """One metric of one video.

    Attributes:
        key: names the video.
        method: name of the method or bound.
        case_id: of the case.
        seed: of the video.
        metric: name of the metric.
        metric_version: of its formula.
        status: "ok" when there is a value, "skipped" when it is not defined here, "failed" when it could not be
            computed or there is no video.
        value: None unless "ok".
        backend: what measured it, e.g. which image encoder.
        error: one line saying why there is no value.
    """

    key: str
    method: str
    case_id: str
    seed: int
    metric: str
    metric_version: int
    status: Status
    value: float | None
    backend: str
    error: str | None


def error_text(error: BaseException, limit: int = 300) -> str:
    """Type and message of an error on one line of at most `limit` characters."""
    text = " ".join(str(error).split())
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return line if len(line) <= limit else line[: limit - 1] + "…"

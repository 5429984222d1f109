"""Rows of the two tables, and the small files that they are gathered from: records and scores."""

from typing import Annotated, Any, Literal

from pydantic import TypeAdapter
from pydantic.dataclasses import dataclass

from benchmark.store.schema.entry import CONFIG, Entry, unit

Status = Literal["ok", "failed", "skipped"]
"""A failure, a skip and a value are three different things, and none of them is 0.0."""

SampleStatus = Literal[Status, "missing"]
"""A planned video that was not made yet is missing."""

FEATURES_VERSION = 1
"""Version of perception; raise it when the same backend names begin to give other features."""


@dataclass(frozen=True, config=CONFIG)
class SampleRow:
    """A planned video, or the reason why there is none: a row of samples.parquet, and a file of `records`."""

    key: str
    """Names the video: digest of all that it depends on (32 hex digits)."""
    fit_key: str | None
    """Names the fit that it was made with; `null` for bounds and submitted videos."""
    method: str
    """Name of the method or bound."""
    method_version: int
    """Version of the method when the video was made."""
    backbone: str
    """Name of the backbone."""
    backbone_revision: str
    """Digest or commit of the backbone's weights."""
    case_id: str
    """Id of the case."""
    seed: int
    """Seed of all noise of the transfer."""
    status: SampleStatus
    """`ok` when there is a video, `skipped` when there can be none here, `failed` when making it failed, `missing` when
    it was not made yet (in the table alone)."""
    error: str | None = None
    """One line saying why there is no video; `null` when there is one."""
    video: str | None = None
    """Path of the lossless file inside the run directory; `null` when there is none."""
    video_digest: str | None = None
    """SHA-256 of the decoded frames; `null` when there is no video."""
    video_bytes: Annotated[int | None, unit("bytes")] = None
    """Size of the lossless file, by which a truncated one is found at once; `null` when there is no video."""
    fit_s: Annotated[float | None, unit("s")] = None
    """Wall time of the fit, which all videos with this `fit_key` share; `null` where nothing was fitted, and without a
    video."""
    transfer_s: Annotated[float | None, unit("s")] = None
    """Wall time of the transfer; `null` for the same rows."""
    peak_memory_gib: Annotated[float | None, unit("GiB")] = None
    """The larger of the fit's and the transfer's peak (see `benchmark.stages.metering`); `null` for the same rows."""
    action_mib: Annotated[float | None, unit("MiB")] = None
    """Size of the learned action; `null` for the same rows."""
    origin: Literal["made", "submitted"] = "made"
    """`submitted` when the video was made elsewhere, `made` when this suite made it, or failed to."""
    resize_rule: str | None = None
    """Name and version of the rule that brings a submitted video to the format; `null` for all others."""
    changed: str | None = None
    """Text that says what the rule changed in a submitted video; `null` when nothing, and for all others."""
    source: str | None = None
    """Path of the submitted file inside the submission's folder; `null` when there is none, and for all others."""
    source_frames: Annotated[int | None, unit("frames")] = None
    """Length of the submitted file; `null` for the same rows."""
    source_fps: Annotated[float | None, unit("frames/s")] = None
    """Rate of the submitted file; `null` for the same rows and for a folder of pictures, which states none."""
    source_height: Annotated[int | None, unit("pixels")] = None
    """Height of the submitted file; `null` for the same rows."""
    source_width: Annotated[int | None, unit("pixels")] = None
    """Width of the submitted file; `null` for the same rows."""
    fit_seed: int | None = None
    """Seed of all noise of the fit; `seed` where nothing is fitted. Absent from older runs, whose fits took `seed`."""


@dataclass(frozen=True, config=CONFIG)
class ScoreRow:
    """One metric of one video: a row of scores.parquet."""

    key: str
    """Names the video."""
    method: str
    """Name of the method or bound."""
    case_id: str
    """Id of the case."""
    seed: int
    """Seed of the video."""
    metric: str
    """Name of the metric."""
    metric_version: int
    """Version of its formula."""
    status: Status
    """`ok` when there is a value, `skipped` when it is not defined here, `failed` when it could not be computed."""
    value: float | None
    """In the metric's own unit (run.json: metrics); `null` unless `ok`."""
    backend: str
    """Backend that measured it, by its name in run.json."""
    error: str | None
    """One line saying why there is no value; `null` when there is one."""


class StoredScore(Entry):
    """One metric of one video; the keys are those of a row of scores.parquet."""

    version: int
    """`metric_version` of the row."""
    backend: str
    """Backend that measured it."""
    status: Status
    """As in the row."""
    value: float | None
    """As in the row."""
    error: str | None
    """As in the row."""


class StoredScores(Entry):
    """A file of `scores`: what was measured of one video, metrics that the run no longer names included."""

    video_digest: str | None
    """Digest of the frames that were measured; `null` where there was no video."""
    features_version: int
    """Raised when perception begins to see something else in the same frames."""
    metrics: dict[str, StoredScore]
    """Scores by name of the metric."""


def columns_of(row: type) -> dict[str, dict[str, Any]]:
    """JSON Schema of each column of a row: `description`, and `unit` where it has one."""
    return TypeAdapter(row).json_schema()["properties"]

"""The run directory as a contract: every file, every key of run.json and of the small JSON files, every column.

Types, units and meanings stand only here. The harness refuses to write a description that breaks them. The two tables
take their columns from them. `python -m benchmark.store.contract` generates docs/run-directory.md and its JSON Schema
from them. Pydantic checks both JSON and rows. A library for tables would add a dependency and no further check, since
the tables have two dozen columns of plain types.

Every described key is present, unless its default is named. `null` means that there is no such thing, that it is not
known, or that it failed. A missing key means that the entry is of another kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

Status = Literal["ok", "failed", "skipped"]
"""A failure, a skip and a value are three different things, and none of them is 0.0."""

SampleStatus = Literal[Status, "missing"]
"""A planned video that was not made yet is missing."""

Axis = Literal["layout", "viewpoint", "skeleton", "pose"]
Tercile = Literal["near", "middle", "far"]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

FEATURES_VERSION = 1
"""Version of perception; raise it when the same backend names begin to give other features."""

_CONFIG = ConfigDict(
    extra="forbid",
    use_attribute_docstrings=True,
    allow_inf_nan=False,
    json_schema_serialization_defaults_required=True,
)


def _unit(name: str) -> Any:
    return Field(json_schema_extra={"unit": name})


class Entry(BaseModel):
    """An object of run.json: no key but those described."""

    model_config = _CONFIG


class BackboneEntry(Entry):
    """The image-to-video model that all methods run on."""

    name: str
    """Name or folder, as given to `--backbone`; `none` if all videos were submitted and no model is part of the run."""
    revision: str
    """Digest or commit of its weights."""
    dtype: str
    """Dtype of its weights, such as `float32`."""
    num_frames: Annotated[int, _unit("frames")]
    """Length of every video."""
    height: Annotated[int, _unit("pixels")]
    """Height of every video."""
    width: Annotated[int, _unit("pixels")]
    """Width of every video."""
    fps: Annotated[float, _unit("frames/s")]
    """Rate of every video."""
    max_text_tokens: Annotated[int, _unit("tokens")]
    """Longest caption that it reads; longer ones are cut."""
    num_inference_steps: Annotated[int, _unit("steps")]
    """Sampler steps of a method that sets none."""
    guidance_scale: float
    """Classifier-free guidance of a method that sets none; 1 is none."""
    num_parameters: int
    """Parameters of its transformer."""


class CandidateSettings(Entry):
    """Settings of the answers among which retrieval chooses."""

    named_actions: Sha256
    """Digest of all named actions."""
    alike_agreement: float
    """A candidate that agrees this well with a right answer is right too, -1..1."""
    seen_motion_share: float
    """A candidate moves some keypoint at least this share of the frame's side."""


class KnownTruth(Entry):
    """Settings of the right answers of a rendered suite."""

    renderer_version: int
    """Raised when the same scene gives other pixels."""
    truth_version: int
    """Raised when the same case is judged by another truth."""
    counted_motion_share: float
    """A keypoint is judged when a right answer moves it at least this share of the frame's side."""
    silent_share: float
    """Share of the clip at its start that is not judged, 0..1."""
    blend_shares: list[float]
    """Shares of the clip that right answers may take from the target's pose into the action, 0..1."""
    candidates: CandidateSettings
    """Settings of retrieval's answers."""


class UnknownTruth(Entry):
    """Real material, whose right answer nobody knows."""

    known: Literal[False]
    """Always false; the key is missing where the truth is known."""


class MethodEntry(Entry):
    """A method that competes."""

    kind: Literal["method"]
    """Tells methods from bounds."""
    version: int
    """Raised when the same input gives another video."""
    method_id: str
    """Name of the implementation in keys, wherever its code stands; variants share it."""
    uses_reference: bool
    """True if it looks at the reference at all."""
    summary: str
    """One line for a reader of the table."""
    extra_supervision: str
    """Material that it was given and others were not; `none` if there is none."""
    adapter_mib: Annotated[float, _unit("MiB")]
    """Size of the pretrained weights that it loads in addition to the backbone's."""
    fit_config: dict[str, JsonValue]
    """Every setting that its fit depends on; part of the key of a fit."""
    transfer_config: dict[str, JsonValue]
    """Every setting that its transfer depends on in addition; part of the key of a video."""


class SubmissionEntry(Entry):
    """A method that competes by videos that were made elsewhere; nothing is known of it but what was said."""

    kind: Literal["submission"]
    """Tells submissions from methods and bounds."""
    version: int
    """Version of the rule by which videos are brought to the format of the run."""
    summary: str
    """One line for a reader of the table."""
    extra_supervision: str
    """Material that it was given and others were not, as those who made it say, or `not stated`."""
    videos: dict[str, Sha256 | None]
    """Digest of each submitted file, by CASE_ID/SEED; `null` where none was submitted. For a folder of pictures, of
    their digests in their order."""


class BoundEntry(Entry):
    """A floor or a ceiling: a video that nobody had to generate from the reference alone."""

    kind: Literal["bound"]
    """Tells bounds from methods."""
    version: int
    """Raised when the same case gives another video."""
    summary: str
    """One line for a reader of the table."""
    extra_supervision: str
    """Truth that it may read and no method may; `none` if it needs no truth."""
    sampled: bool
    """True if every seed gives another video; if not, there is one video per case, under the first seed."""
    fit_config: dict[str, JsonValue]
    """Empty: bounds fit nothing."""
    transfer_config: dict[str, JsonValue]
    """Every setting that its video depends on; part of its key."""


class MetricEntry(Entry):
    """One number that is measured of every video."""

    version: int
    """Raised when the same video gives another number."""
    unit: str
    """Unit of the value; empty for a pure number."""
    higher_is_better: bool | None
    """`null` where neither end is good: the value describes."""
    bounds: tuple[float, float]
    """Smallest and largest possible value."""
    needs: list[str]
    """Inputs that it reads, such as `generated`, `reference` or `truth`."""
    summary: str
    """One line for a reader of the table."""
    headline: bool
    """True if tables are sorted by it; true for at most one metric."""
    backend: str
    """Network that measures it, such as an image encoder; `none` if there is none. Values compare within one."""


class FileEntry(Entry):
    """A file that a case is made of."""

    name: str
    """Path inside the suite's folder."""
    sha256: Sha256
    """Digest of its bytes; for a folder of frames, of its frames' digests in their order."""


class ClipEntry(FileEntry):
    """The file that shows the action."""

    frames: tuple[int, int] | None
    """First and one past the last frame that show the action; `null`: all of them."""
    duration_s: Annotated[float, _unit("s")]
    """Time from the first to the last of them, as they are read. A clip of another length plays them faster or
    slower."""


class CaseFiles(Entry):
    """The two files of a case."""

    reference: ClipEntry
    """The video of the action."""
    target: FileEntry
    """The target image."""


class FileDigests(Entry):
    """Digests that name results of a case of files."""

    reference: Sha256
    """Digest of the reference's file, of the part that is shown, and of the way it is read."""
    target: Sha256
    """Digest of the target's file and of the way it is read."""


class PuppetDigests(Entry):
    """Digests that name results of a rendered case: of specifications, not of pixels."""

    reference: Sha256
    """Digest of the reference's scene and action."""
    target: Sha256
    """Digest of the target's scene and pose."""
    truth: Sha256
    """Digest of all that the right answer depends on."""


class CaseEntry(Entry):
    """Fields that all cases have."""

    action: str
    """Name of the action."""
    reference_id: str
    """Cases of one reference share it; statistics are clustered by it."""
    target_id: str
    """Name of the target image."""
    caption: str
    """Describes the reference; read while fitting."""
    prompt: str
    """Describes the target; read while transferring."""
    licence: str
    """SPDX identifier of the material, or what it says, or `not stated`."""
    source: str
    """Origin of the material."""


class PuppetCaseEntry(CaseEntry):
    """A rendered case, whose right answer is known."""

    wrong_action: str
    """Another action, for the bound of that name."""
    left_out_share: float
    """Share of the action's channels that this target cannot show, 0..1."""
    reference_rig: str
    """Body of the reference."""
    target_rig: str
    """Body of the target."""
    axes: dict[Axis, float]
    """Distance between reference and target on each axis; docs/puppets.md gives their units."""
    terciles: dict[Axis, Tercile]
    """Tercile of each distance among the candidates that the suite was chosen from."""
    digests: PuppetDigests
    """Digests that name its results."""


class FileCaseEntry(CaseEntry):
    """A case of files, whose right answer nobody knows."""

    files: CaseFiles
    """Files of the case."""
    axes: dict[str, float] = Field(max_length=0)
    """Empty: nobody knows the distances."""
    terciles: dict[str, str] = Field(max_length=0)
    """Empty: nobody knows the terciles."""
    digests: FileDigests
    """Digests that name its results."""


class Code(Entry):
    """The checkout that ran."""

    commit: str | None
    """`null` when it was no checkout."""
    dirty: bool | None
    """True if tracked files differed from the commit; `null` if that is not known."""


class Flags(BaseModel):
    """Switches that can change a number; environment variables among them only where they were set."""

    model_config = _CONFIG | ConfigDict(extra="allow")

    deterministic_algorithms: bool
    """State of torch's switch of this name."""
    cudnn_benchmark: bool
    """State of torch's switch of this name."""
    tf32: bool
    """State of torch's switch for TF32 in matrix products on a GPU."""
    cpu_capability: str | None = None
    """Instruction set of torch's own kernels on the processor, such as AVX2; older runs lack it."""


class Provenance(Entry):
    """Everything that could explain a difference between two runs. No person's or host's name."""

    code: Code
    """Code that ran."""
    python: str
    """Version of Python."""
    packages: dict[str, str]
    """Versions of the installed packages that can change a number."""
    weights: dict[str, Sha256]
    """Digests of the shipped weights, by folder."""
    device: str
    """Name of the GPU, or of the processor."""
    system: str
    """Operating system and architecture."""
    threads: int
    """Threads of each process."""
    workers: int
    """Processes that made and measured videos."""
    flags: Flags
    """Switches of torch."""


class Session(Entry):
    """One start of the command that added something."""

    command: str
    """Command that started it."""
    provenance: Provenance
    """Provenance of its numbers."""


class Description(Entry):
    """Everything that decides the videos of a run and their metrics."""

    schema_version: int
    """Version of the run directory; raised when a file, key or column changes its meaning."""
    suite: str
    """Name of the suite."""
    suite_version: int | None
    """Raised with other cases; `null` for a folder of material."""
    suite_digest: Sha256 | None
    """Digest of all that the suite says; `null` for a folder of material, whose cases hold their files' digests."""
    seeds: list[int]
    """Seeds of transfers, ascending."""
    fit_seeds: list[int] | None = None
    """Seeds of fits, ascending, each with every seed; `null`: a fit takes the seed of its transfer. Absent from older
    runs, where it means `null`."""
    backbone: BackboneEntry
    """The model that all methods run on."""
    truth: KnownTruth | UnknownTruth
    """Settings of the right answers, if they are known."""
    methods: dict[str, Annotated[MethodEntry | SubmissionEntry | BoundEntry, Field(discriminator="kind")]]
    """Methods, submissions and bounds by name, in the order of the tables."""
    metrics: dict[str, MetricEntry]
    """Metrics by name, in the order of the tables."""
    cases: dict[str, PuppetCaseEntry | FileCaseEntry]
    """Cases by id."""


class Run(Description):
    """run.json."""

    command: str
    """Command that started the first session."""
    provenance: Provenance
    """Provenance of the first session's numbers."""
    later_sessions: list[Session]
    """Sessions that added something and differ from the first, and from each other, in command or provenance."""


@dataclass(frozen=True, config=_CONFIG)
class SampleRow:
    """A planned video, or the reason why there is none: a row of samples.parquet and the whole of records/KEY.json."""

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
    video_bytes: Annotated[int | None, _unit("bytes")] = None
    """Size of the lossless file, by which a truncated one is found at once; `null` when there is no video."""
    fit_s: Annotated[float | None, _unit("s")] = None
    """Wall time of the fit, which all videos with this `fit_key` share; `null` where nothing was fitted, and without a
    video."""
    transfer_s: Annotated[float | None, _unit("s")] = None
    """Wall time of the transfer; `null` for the same rows."""
    peak_memory_gib: Annotated[float | None, _unit("GiB")] = None
    """The larger of the fit's and the transfer's peak (see `benchmark.measure.Cost`); `null` for the same rows."""
    action_mib: Annotated[float | None, _unit("MiB")] = None
    """Size of the learned action; `null` for the same rows."""
    origin: Literal["made", "submitted"] = "made"
    """`submitted` when the video was made elsewhere, `made` when this suite made it, or failed to."""
    resize_rule: str | None = None
    """Name and version of the rule that brings a submitted video to the format; `null` for all others."""
    changed: str | None = None
    """Text that says what the rule changed in a submitted video; `null` when nothing, and for all others."""
    source: str | None = None
    """Path of the submitted file inside the submission's folder; `null` when there is none, and for all others."""
    source_frames: Annotated[int | None, _unit("frames")] = None
    """Length of the submitted file; `null` for the same rows."""
    source_fps: Annotated[float | None, _unit("frames/s")] = None
    """Rate of the submitted file; `null` for the same rows and for a folder of pictures, which states none."""
    source_height: Annotated[int | None, _unit("pixels")] = None
    """Height of the submitted file; `null` for the same rows."""
    source_width: Annotated[int | None, _unit("pixels")] = None
    """Width of the submitted file; `null` for the same rows."""
    fit_seed: int | None = None
    """Seed of all noise of the fit; `seed` where nothing is fitted. Absent from older runs, whose fits took `seed`."""


@dataclass(frozen=True, config=_CONFIG)
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
    """scores/KEY.json: what was measured of one video, metrics that the run no longer names included."""

    video_digest: str | None
    """Digest of the frames that were measured; `null` where there was no video."""
    features_version: int
    """Raised when perception begins to see something else in the same frames."""
    metrics: dict[str, StoredScore]
    """Scores by name of the metric."""


class MethodCost(Entry):
    """Costs of the videos of a method."""

    videos: int
    """Number of videos that were made."""
    absent: int
    """Number of planned videos that failed, were skipped or are missing."""
    submitted: bool
    """True if the videos were made elsewhere; their costs are not known."""
    fits: int
    """Number of distinct fits."""
    fit_s: Annotated[float, _unit("s")]
    """Wall time of all fits together."""
    transfer_s: Annotated[float, _unit("s")]
    """Wall time of all transfers together."""
    peak_memory_gib: Annotated[float | None, _unit("GiB")]
    """Largest peak of a fit or transfer; `null` where it was not measured."""


class CardPart(Entry):
    """One run, as it was when its card was written or when it was merged into this one."""

    sampled_by: str
    """Who made the videos, as they say, or `not stated`."""
    scored_by: str
    """Who measured them, as they say, or `not stated`."""
    sessions: list[dict[str, JsonValue]]
    """Sessions of the run, as its run.json describes them."""
    methods: dict[str, MethodCost]
    """Methods and bounds by name."""
    evaluators: dict[str, str]
    """What measured each metric, and the version of the metric."""


class Card(Entry):
    """card.json: who made the videos, who measured them, and at what cost."""

    parts: list[CardPart]
    """One part for each run that was merged, in their order; one for a run that was not."""


@plain_dataclass(frozen=True)
class StoredFile:
    """A kind of file of a run directory.

    Attributes:
        path: Path inside the run directory; KEY, FIT_KEY, FEATURES_KEY and CASE_ID are the columns of these names.
        meaning: Description for people.
        content: Model of its keys or columns; None for videos, images and tensors.
    """

    path: str
    meaning: str
    content: type | None = None


FILES: tuple[StoredFile, ...] = (
    StoredFile("run.json", "What is run. All videos of the run and their keys follow from it.", Run),
    StoredFile(
        "card.json",
        "Who made the videos, who measured them, and at what cost: written by a merge and by "
        "`python -m benchmark.exchange card`.",
        Card,
    ),
    StoredFile("samples.parquet", "All planned videos, a row each; gathered from `records`.", SampleRow),
    StoredFile("scores.parquet", "All metrics of all videos, a row each; gathered from `scores`.", ScoreRow),
    StoredFile("records/KEY.json", "One row of samples.parquet, written after its video.", SampleRow),
    StoredFile("scores/KEY.json", "What was measured of one video.", StoredScores),
    StoredFile("videos/KEY.mkv", "The video, lossless: FFV1, RGB, 8 bits."),
    StoredFile("previews/KEY.mp4", "The same for a browser, enlarged by a whole number."),
    StoredFile(
        "fits/FIT_KEY.safetensors",
        "The tensors that a fit learned. The header's `cost` is JSON: `seconds` (s) and `peak_gib` (GiB). While a fit "
        "of over five minutes is made, the folder `fits/FIT_KEY.partial` holds its state.",
    ),
    StoredFile(
        "features/FEATURES_KEY.safetensors",
        "What perception saw in a video: fields of `metrics.features.VideoFeatures`, those that were measured.",
    ),
    StoredFile(
        "log.txt", "What was made, failed, was found damaged and was made again: a line each, with its time (UTC)."
    ),
    StoredFile("inputs/CASE_ID/reference.mkv", "The reference as methods see it, lossless."),
    StoredFile("inputs/CASE_ID/reference.mp4", "The same for a browser."),
    StoredFile("inputs/CASE_ID/target.png", "The target image as methods see it."),
)
"""All files of a run. The report that the command adds stands in `report/`; `.lock` keeps a second run out."""


def check_description(run: Mapping[str, Any]) -> None:
    """Check what a run.json says of videos and metrics, and the form of its sessions.

    Raises:
        ValueError: If it breaks the contract; the message is one line and names the first key that does.
    """
    try:
        Description.model_validate({name: run[name] for name in Description.model_fields if name in run})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    sessions = run.get("later_sessions")
    for session in [run, *sessions] if isinstance(sessions, list) else [None]:
        if not (
            isinstance(session, dict)
            and isinstance(session.get("command"), str)
            and isinstance(session.get("provenance"), dict)
        ):
            raise ValueError("later_sessions: expected sessions with command and provenance")


def columns_of(row: type) -> dict[str, dict[str, Any]]:
    """JSON Schema of each column of a row: `description`, and `unit` where it has one."""
    properties: dict[str, dict[str, Any]] = TypeAdapter(row).json_schema()["properties"]
    return properties

"""run.json: what is run, and everything that could explain a difference between two runs."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from benchmark.store.schema.cases import FileCaseEntry, PuppetCaseEntry
from benchmark.store.schema.entry import CONFIG, Entry, Sha256, unit


class BackboneEntry(Entry):
    """The image-to-video model that all methods run on."""

    name: str
    """Name or folder, as given to `--backbone`; `none` if all videos were submitted and no model is part of the run."""
    revision: str
    """Digest or commit of its weights."""
    dtype: str
    """Dtype of its weights, such as `float32`."""
    num_frames: Annotated[int, unit("frames")]
    """Length of every video."""
    height: Annotated[int, unit("pixels")]
    """Height of every video."""
    width: Annotated[int, unit("pixels")]
    """Width of every video."""
    fps: Annotated[float, unit("frames/s")]
    """Rate of every video."""
    max_text_tokens: Annotated[int, unit("tokens")]
    """Longest caption that it reads; longer ones are cut."""
    num_inference_steps: Annotated[int, unit("steps")]
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
    adapter_mib: Annotated[float, unit("MiB")]
    """Size of the pretrained weights that it loads in addition to the backbone's."""
    fit_config: dict[str, JsonValue]
    """Settings that its fit depends on, but for those at a neutral value that were added later; part of a fit's key."""
    transfer_config: dict[str, JsonValue]
    """The same for settings that its transfer depends on in addition; part of the key of a video."""


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


class Code(Entry):
    """The checkout that ran."""

    commit: str | None
    """`null` when it was no checkout."""
    dirty: bool | None
    """True if tracked files differed from the commit; `null` if that is not known."""


class Flags(BaseModel):
    """Switches that can change a number; environment variables among them only where they were set."""

    model_config = CONFIG | ConfigDict(extra="allow")

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


def sessions_of(run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Command and provenance of each session of a run, the first one first."""
    return [{name: run[name] for name in ("command", "provenance")}, *run["later_sessions"]]


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

"""Cases of run.json: rendered ones, whose right answer is known, and those of files."""

from typing import Annotated, Literal

from pydantic import Field

from benchmark.store.schema.entry import Entry, Sha256, unit

Axis = Literal["layout", "viewpoint", "skeleton", "pose"]
Tercile = Literal["near", "middle", "far"]


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
    duration_s: Annotated[float, unit("s")]
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


class AlikeDigests(FileDigests):
    """Digests of a case of files whose reference and target are those of an earlier case, with other texts."""

    case: Sha256
    """Digest of the case's id, so that the two are told apart."""


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
    digests: FileDigests | AlikeDigests
    """Digests that name its results."""

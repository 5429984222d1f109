"""Cases made of files: a reference video and a target image of real material, whose right answer nobody knows.

They stand beside those of `benchmark.suites.puppets`, which are rendered and come with their truth. Finding them
needs no network library and decodes nothing; what they show is read in `benchmark.suites.reading`.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from benchmark.selection import UsageError
from benchmark.suites.case import CaseError, Format, Shown, refuse
from flexiact.media.digests import file_digest
from flexiact.media.digests import json_digest as digest
from flexiact.media.files import MediaError, is_clutter, read_text
from flexiact.media.frame_folder import pictures_in

if TYPE_CHECKING:
    from flexiact.task import Video

READING_VERSION = 2
"""Raised when the same files begin to give other frames."""

NO_TRUTH = "needs the right answer, which nobody knows of real material"
"""Why a metric, bound or method is skipped on a case of files."""

UNSTATED = "not stated"
"""Licence of material that does not say."""

_CASE_WORDS = ("action", "reference_id", "target_id", "caption", "prompt", "licence", "source")
_TEXTS = {".csv", ".json", ".md", ".txt"}
_REFERENCES_KEPT = 2  # cases of one reference follow each other


@dataclass(frozen=True)
class File:
    """One file of a suite, or a folder of frames.

    Attributes:
        path: Path to the file.
        name: its path inside the suite's folder, with slashes.
        sha256: SHA-256 of its bytes (64 hex digits); for a folder, that of its frames' SHA-256 in their order.
    """

    path: Path
    name: str
    sha256: str


@dataclass(frozen=True)
class FileCase:
    """One transfer to be made between files. How far apart its two scenes are is not known.

    Attributes:
        case_id: unique in the suite, fit for the name of a folder.
        action: name of the action.
        reference_id: cases of one reference share it; statistics are clustered by it.
        caption: describes the reference, read while fitting.
        prompt: describes the target, read while transferring.
        licence: Licence of the material, if it is stated.
        source: Origin of the material.
        reference: the video of the action.
        target: the image.
        frames: first and one past the last frame of the reference that show the action; None: all of it.
    """

    case_id: str
    action: str
    reference_id: str
    caption: str
    prompt: str
    licence: str
    source: str
    reference: File
    target: File
    frames: tuple[int, int] | None = None
    truth_known: ClassVar[bool] = False

    @property
    def target_id(self) -> str:
        """Name of the target image."""
        return self.target.name

    @property
    def digests(self) -> dict[str, str]:
        """What results are named by: the files' digests, which part of them is shown, and how they are read."""
        parts: dict[str, dict[str, Any]] = {
            "reference": {"sha256": self.reference.sha256, "frames": self.frames},
            "target": {"sha256": self.target.sha256},
        }
        return {name: digest({"reading_version": READING_VERSION, **part}) for name, part in parts.items()}

    def describe(self) -> dict[str, Any]:
        """The entry in run.json; axes and terciles are empty, since nobody knows them."""
        return {
            **{name: getattr(self, name) for name in _CASE_WORDS},
            "files": {
                "reference": {"name": self.reference.name, "sha256": self.reference.sha256, "frames": self.frames},
                "target": {"name": self.target.name, "sha256": self.target.sha256},
            },
            "axes": {},
            "terciles": {},
            "digests": self.digests,
        }

    def check(self) -> None:
        """Refuse a case whose files are no longer what they were when the suite was read.

        Raises:
            CaseError: naming the file.
        """
        for file in (self.reference, self.target):
            if file_of(file.path.parent, file.path.name).sha256 != file.sha256:
                raise CaseError(f"{file.path}: has changed since the suite was read")

    def losses(self, form: Format) -> list[tuple[str, str]]:
        """Notes about files of which much is cut away when they are brought to a format.

        Raises:
            MediaError: If a file cannot be read.
        """
        from benchmark.suites.reading import cut_notes

        return cut_notes(self.reference.path, self.target.path, form)

    def show(self, form: Format) -> Shown:
        """What the case shows, read as `python -m flexiact` reads its two files.

        Raises:
            MediaError: If a file cannot be read.
        """
        from flexiact.media.image import fit_image, read_image
        from flexiact.notes import collected

        with collected():  # `check_readable` and `losses` say it, once for all workers
            image = fit_image(read_image(self.target.path), form.height, form.width)
            return Shown(_shown_reference(self.reference, self.frames, form), image.copy())  # a copy may be written to


@lru_cache(maxsize=_REFERENCES_KEPT)
def _shown_reference(file: File, frames: tuple[int, int] | None, form: Format) -> "Video":
    from benchmark.suites.reading import read_reference

    return read_reference(file.path, frames, form)


@dataclass(frozen=True)
class FileSuite:
    """A set of cases found in a folder.

    Attributes:
        name: Name for tables and run directories; holds no path.
        cases: Cases in the order of their ids.
        num_inference_steps: None: a folder asks for no number of sampler steps.
        headline: Headline metric; one that does not need the right answer.
        version: a folder has none.
        digest: nor this; run.json holds its files' digests.
    """

    name: str
    cases: tuple[FileCase, ...]
    num_inference_steps: int | None = None
    headline: str = "motion_fidelity"
    version: int | None = None
    digest: str | None = None

    @property
    def case_ids(self) -> tuple[str, ...]:
        """Ids of all cases."""
        return tuple(case.case_id for case in self.cases)

    def chosen(self, case_ids: Iterable[str]) -> tuple[FileCase, ...]:
        """Those of the cases, in the suite's order."""
        asked = set(case_ids)
        return tuple(case for case in self.cases if case.case_id in asked)

    def check_readable(self, case_ids: Iterable[str]) -> None:
        """Find damaged files before a large model is loaded, and say what is read otherwise than headers say.

        Raises:
            CaseError: naming all of them, up to ten.
        """
        from benchmark.suites.reading import unreadable

        refuse("suite", unreadable(self.chosen(case_ids)))


def folder_suite(place: str) -> FileSuite:
    """One reference and any number of targets in a plain folder, each case with its own text.

    `reference.mp4`, or without it a file `reference` of another suffix or a folder `reference` of frames, is the video
    and `reference.txt` says what it shows;
    `images/NAME.png` (or any format that Pillow reads) is a target and `images/NAME.txt` says what its video shall
    show.

    Args:
        place: the folder.

    Raises:
        UsageError: If there is no such folder.
        CaseError: If files are missing or empty; the message names all of them, up to ten.
    """
    root = Path(place).expanduser()
    if not root.is_dir():
        raise UsageError(f"suite: there is no folder {root}")
    beside = sorted((root / "images").glob("[!.]*"))
    images = [path for path in beside if path.is_file() and path.suffix.lower() != ".txt" and not is_clutter(path)]
    problems: list[str] = []
    video = _reference(root, problems)
    problems += [] if images else ["images/ holds no image"]
    caption = _text(root, "reference.txt", f"what {video} shows", problems)
    prompts = [
        _text(root, f"images/{image.stem}.txt", f"what the video of {image.name} shall show", problems)
        for image in images
    ]
    refuse(root, problems)
    action = file_name(root.resolve().name)
    reference = file_of(root, video)
    cases = [
        FileCase(
            case_id=name,
            action=action,
            reference_id=action,
            caption=caption,
            prompt=prompt,
            licence=UNSTATED,
            source="a folder of files",
            reference=reference,
            target=file_of(root, f"images/{image.name}"),
        )
        for name, image, prompt in zip(unique_names(image.stem for image in images), images, prompts, strict=True)
    ]
    return FileSuite(f"folder-{action}", tuple(sorted(cases, key=lambda case: case.case_id)))


def _reference(root: Path, problems: list[str]) -> str:
    """Name of the video in a plain folder; whether it is one is found out when it is read."""
    if (root / "reference.mp4").is_file():
        return "reference.mp4"
    videos = [path for path in root.iterdir() if path.stem.lower() == "reference" and path.suffix.lower() not in _TEXTS]
    found = sorted(path.name for path in videos if path.is_file() or path.name == "reference")
    if not found:
        problems.append("reference.mp4, or a folder reference of its frames, is missing")
    if len(found) > 1:
        problems.append(f"there are several references, {' and '.join(found)}: leave one")
    return found[0] if found else "reference.mp4"


def file_of(root: Path, name: str) -> File:
    """A file, or folder of pictures, of a suite's folder with its digest.

    Raises:
        CaseError: If it cannot be read.
    """
    path = root / name
    try:
        if not path.is_dir():
            return File(path, name, file_digest(path))
        digests = "".join(file_digest(picture) for picture in pictures_in(path))
    except MediaError as error:
        raise CaseError(str(error)) from error
    except OSError as error:
        raise CaseError(f"{path}: {error.strerror or error}") from error
    return File(path, name, hashlib.sha256(digests.encode()).hexdigest())


def file_name(text: str) -> str:
    """A text as the name of a file: letters, digits, `_`, `.` and `-`, not hidden, not empty."""
    return re.sub(r"[^\w.-]+", "-", text).strip(".-") or "unnamed"


def unique_names(texts: Iterable[str]) -> list[str]:
    """`file_name` of each; of equal ones, the later get -2, -3 and so on."""
    names: list[str] = []
    for text in texts:
        name, count = file_name(text), 1
        while name in names:
            count += 1
            name = f"{file_name(text)}-{count}"
        names.append(name)
    return names


def _text(root: Path, name: str, what: str, problems: list[str]) -> str:
    try:
        text = " ".join(read_text(root / name).split())
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{name} cannot be read ({type(error).__name__})")
        return ""
    if not text:
        problems.append(f"{name} is missing or empty: write into it {what}")
    return text

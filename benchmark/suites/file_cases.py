"""Cases made of files: a reference video and a target image of real material, whose right answer nobody knows.

Cases of `benchmark.suites.puppets`, in contrast, are rendered and have a known truth. Finding cases of files needs no
network library and decodes nothing; `benchmark.suites.reading` reads their content.
"""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from benchmark.suites.case import CaseError, Format, Shown, refuse
from flexiact.media.digests import file_digest
from flexiact.media.digests import json_digest as digest
from flexiact.media.files import MediaError
from flexiact.media.frame_folder import pictures_in
from flexiact.terminal.cli import shortened

if TYPE_CHECKING:
    import numpy as np

    from flexiact.task import Video

READING_VERSION = 4
"""Version of the reading; raise it when the same files begin to give other frames."""

NO_TRUTH = "needs the right answer, which nobody knows of real material"
"""Reason why a metric, bound or method is skipped on a case of files."""

UNSTATED = "not stated"
"""Licence of material that does not state one."""

_CASE_WORDS = ("action", "reference_id", "target_id", "caption", "prompt", "licence", "source")
_LONGEST_ID = 255  # bytes; no common file system takes more
_REFERENCES_KEPT = 2  # cases of one reference follow one another


@dataclass(frozen=True)
class File:
    """One file of a suite, or a folder of frames.

    Attributes:
        name: Path relative to the suite's folder, with slashes.
        sha256: SHA-256 of the file's bytes (64 hex digits); for a folder, of its frames' SHA-256 in their order.
    """

    path: Path
    name: str
    sha256: str


@dataclass(frozen=True)
class FileCase:
    """One transfer to be made between files. The distance between its two scenes is unknown.

    Attributes:
        frames: First frame and one past the last frame of the reference that show the action; None: all frames.
        crops: Crops that come with the reference, each a file and the frames that show the action.
        like_another: True if an earlier case of the suite has the same reference and target, with other texts.
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
    crops: tuple[tuple[File, tuple[int, int]], ...] = ()
    like_another: bool = False
    truth_known: ClassVar[bool] = False

    @property
    def target_id(self) -> str:
        """Name of the target image."""
        return self.target.name

    @property
    def digests(self) -> dict[str, str]:
        """Digests that name results: of the files, of the part of them that is shown, and of the way they are read."""
        parts: dict[str, dict[str, Any]] = {
            "reference": {"sha256": self.reference.sha256, "frames": self.frames},
            "target": {"sha256": self.target.sha256},
        }
        if self.crops:
            parts["reference"]["crops"] = [[file.sha256, frames] for file, frames in self.crops]
        named = {name: digest({"reading_version": READING_VERSION, **part}) for name, part in parts.items()}
        return named | ({"case": digest(self.case_id)} if self.like_another else {})

    def describe(self) -> dict[str, Any]:
        """Entry of the case in run.json; axes and terciles are empty, since nobody knows them.

        Raises:
            MediaError: If the reference cannot be read.
        """
        return {
            **{name: getattr(self, name) for name in _CASE_WORDS},
            "files": {
                "reference": {
                    "name": self.reference.name,
                    "sha256": self.reference.sha256,
                    "frames": self.frames,
                    "duration_s": _duration_s(self.reference, self.frames),
                },
                "target": {"name": self.target.name, "sha256": self.target.sha256},
            },
            "axes": {},
            "terciles": {},
            "digests": self.digests,
        }

    def check(self) -> None:
        """Refuse a case whose files have changed since the suite was read."""
        for file in (self.reference, self.target, *(file for file, _ in self.crops)):
            if _digest_of(file.path) != file.sha256:
                raise CaseError(f"{file.path}: has changed since the suite was read")

    def losses(self, form: Format) -> list[tuple[str, str]]:
        """Notes about files that lose a large part when they are cut to a format.

        Raises:
            MediaError: If a file cannot be read.
        """
        from benchmark.suites.reading import cut_notes

        return cut_notes(self.reference.path, self.target.path, form)

    def show(self, form: Format) -> Shown:
        """Show the case at a format; both files are read in the same way as by `python -m flexiact`."""
        from flexiact.media.image import fit_image, read_image
        from flexiact.terminal.notes import collected

        with collected():  # `check_readable` and `losses` report the same notes once for all workers
            image = fit_image(read_image(self.target.path), form.height, form.width)
            reference = _shown_reference(self.reference, self.frames, form)
        crops = partial(_shown_crops, self.crops, form) if self.crops else None
        return Shown(reference, image.copy(), read_crops=crops)  # callers may write to the image


@cache
def _duration_s(file: File, frames: tuple[int, int] | None) -> float:
    from benchmark.suites.reading import duration_s

    return duration_s(file.path, frames)


@lru_cache(maxsize=_REFERENCES_KEPT)
def _shown_reference(file: File, frames: tuple[int, int] | None, form: Format) -> "Video":
    from benchmark.suites.reading import read_reference

    return read_reference(file.path, frames, form)


def _shown_crops(crops: Sequence[tuple[File, tuple[int, int]]], form: Format) -> "tuple[np.ndarray, ...]":
    from benchmark.suites.reading import read_reference
    from flexiact.terminal.notes import collected

    with collected():  # what is to be said of a crop was said of the reference
        return tuple(read_reference(file.path, frames, form).frames for file, frames in crops)


@dataclass(frozen=True)
class FileSuite:
    """A set of cases found in a folder, in the order of their ids; its headline needs no right answer."""

    name: str
    cases: tuple[FileCase, ...]
    num_inference_steps: int | None = None
    fit_share: float = 1.0
    headline: str = "motion_fidelity"
    version: int | None = None
    digest: str | None = None

    @property
    def case_ids(self) -> tuple[str, ...]:
        """Ids of all cases."""
        return tuple(case.case_id for case in self.cases)

    def chosen(self, case_ids: Iterable[str]) -> tuple[FileCase, ...]:
        """Cases of the given ids, in the suite's order."""
        asked = set(case_ids)
        return tuple(case for case in self.cases if case.case_id in asked)

    def check_readable(self, case_ids: Iterable[str]) -> None:
        """Find damaged files before a large model is loaded, and report files whose header is wrong."""
        from benchmark.suites.reading import unreadable

        cases = self.chosen(case_ids)
        references = ((case.reference.path, case.frames) for case in cases)
        refuse("suite", unreadable(references, (case.target.path for case in cases)))


def suite_of(name: str, cases: Iterable[FileCase]) -> FileSuite:
    """Make a suite, with its cases in the order of their ids.

    Bounds read no text, but their scores do. So of cases with the same material those after the first given one are
    marked, and their results get keys of their own. The first one keeps its keys, as if the others were not there.

    Raises:
        CaseError: If an id is too long for the name of a folder.
    """
    seen, marked = set[str](), list[FileCase]()
    for case in cases:
        material = digest(case.digests)
        marked.append(replace(case, like_another=material in seen))
        seen.add(material)
    sizes = {case.case_id: len(case.case_id.encode()) for case in marked}
    limit = f"bytes, {_LONGEST_ID} at most can name a folder"
    long = (case_id for case_id, size in sizes.items() if size > _LONGEST_ID)
    refuse("suite", [f"case {shortened(case_id, 40)}: its name has {sizes[case_id]} {limit}" for case_id in long])
    return FileSuite(name, tuple(sorted(marked, key=lambda case: case.case_id)))


def file_of(root: Path, name: str) -> File:
    """Make the `File` of a file or folder of pictures in a suite's folder, with its digest.

    Raises:
        CaseError: If the file cannot be read, or a link leads out of the suite's folder.
    """
    path = root / name
    _check_links(root, path)
    return File(path, name, _digest_of(path))


def _check_links(root: Path, path: Path) -> None:
    """Refuse links out of the suite's folder, before what they lead to is read."""
    is_missing = not os.path.lexists(path)  # which the digest says
    inside = is_missing or lies_inside(root, path.relative_to(root).as_posix())
    for one in [path] if not inside else sorted(path.iterdir()) if path.is_dir() else []:
        if not inside or (one.is_symlink() and not lies_inside(root, one.relative_to(root).as_posix())):
            raise CaseError(f"{one}: is a link that leads out of {root}, or nowhere")


def _digest_of(path: Path) -> str:
    try:
        if not path.is_dir():
            return file_digest(path)
        digests = "".join(file_digest(picture) for picture in pictures_in(path))
    except MediaError as error:
        raise CaseError(str(error)) from error
    except OSError as error:
        raise CaseError(f"{path}: {error.strerror or error}") from error
    return hashlib.sha256(digests.encode()).hexdigest()


def lies_inside(root: Path, name: str) -> bool:
    """True if a relative path leads to a file or folder in a folder, links followed.

    A snapshot of the model hub's cache is all links; the folder `blobs` of its repository belongs to it.
    """
    path, borders = root / name, [root.resolve()]
    if borders[0].parent.name == "snapshots":
        borders.append(borders[0].parents[1] / "blobs")
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # missing, too long, a ring of links, or with a zero byte
        return False
    return not Path(name).is_absolute() and any(real.is_relative_to(border) for border in borders)


def file_name(text: str) -> str:
    """Turn a text into a file name: letters, digits, `_`, `.` and `-`, not hidden, not empty."""
    return re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFC", text)).strip(".-") or "unnamed"


def unique_names(texts: Iterable[str]) -> list[str]:
    """`file_name` of each text; repeated names get -2, -3 and so on."""
    names: list[str] = []
    for text in texts:
        name, count = file_name(text), 1
        while name in names:
            count += 1
            name = f"{file_name(text)}-{count}"
        names.append(name)
    return names

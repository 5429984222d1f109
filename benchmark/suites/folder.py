"""A suite of one reference and some targets that lie in a plain folder."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from benchmark.planning.selection import UsageError
from benchmark.suites.case import refuse
from benchmark.suites.file_cases import (
    UNSTATED,
    FileCase,
    FileSuite,
    file_name,
    file_of,
    lies_inside,
    suite_of,
    unique_names,
)
from flexiact.media.files import in_folder, is_clutter, read_text, trimmed
from flexiact.terminal.cli import one_line, shortened
from flexiact.terminal.notes import note

_TEXTS = {".csv", ".json", ".md", ".txt"}
_LONGEST = 200  # letters of a list of names


def folder_suite(place: str) -> FileSuite:
    """Make a suite of one reference and any number of targets in a plain folder, each case with its own text.

    The video is `reference.mp4`, or else a file `reference` with another suffix, or a folder `reference` of frames.
    `reference.txt` describes it. `images/NAME.png` (or any format that Pillow reads) is a target; `images/NAME.txt`
    describes the video to be made from it.

    Raises:
        UsageError: If there is no such folder.
        CaseError: If files are missing or empty; the message names up to ten.
    """
    root = Path(place).expanduser()
    if not root.is_dir():
        raise UsageError(f"suite: there is no folder {root}")
    beside = sorted(path for path in (root / "images").glob("*") if not is_clutter(path))
    images = [path for path in beside if path.is_file() and path.suffix.lower() != ".txt"]
    _note_unread(root / "images", beside, images)
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
    return suite_of(f"folder-{action}", cases)


def _note_unread(folder: Path, beside: Sequence[Path], images: Sequence[Path]) -> None:
    """Say which texts and folders belong to no image: it may be in a cloud, or have another name."""
    read = {in_folder(folder, f"{image.stem}.txt") for image in images}.union(images)
    if unread := [path.name for path in beside if path not in read]:
        note(folder, f"has texts or folders that belong to no image: {shortened(', '.join(unread), _LONGEST)}")


def _reference(root: Path, problems: list[str]) -> str:
    """Name of the video in a plain folder. A file that is no video is found only when it is read."""
    if (root / "reference.mp4").is_file():
        return "reference.mp4"
    named = [path for path in root.iterdir() if path.stem.lower() == "reference" and not is_clutter(path)]
    videos = [path for path in named if path.suffix.lower() not in _TEXTS]
    found = sorted(path.name for path in videos if path.is_file() or path.name == "reference")
    if not found:
        problems.append("reference.mp4, or a folder reference of its frames, is missing")
    if len(found) > 1:
        problems.append(f"there are several references, {' and '.join(found)}: leave one")
    return found[0] if found else "reference.mp4"


def _text(root: Path, name: str, what: str, problems: list[str]) -> str:
    path = in_folder((root / name).parent, PurePosixPath(name).name)
    try:
        if os.path.lexists(path) and not lies_inside(root, path.relative_to(root).as_posix()):
            raise OSError("a link out of the folder")
        text = " ".join(trimmed(read_text(path)).split())
    except FileNotFoundError:
        text = ""
    except OSError as error:
        problems.append(f"{name} cannot be read ({error.strerror or one_line(error)})")
        return ""
    if not text:
        problems.append(f"{name} is missing or empty: write into it {what}")
    return text

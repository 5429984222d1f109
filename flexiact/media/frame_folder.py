"""Read a folder of numbered pictures as a video, one picture per frame, as DAVIS and many other datasets store them."""

import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flexiact.media.files import MediaError, is_clutter
from flexiact.terminal.cli import one_line
from flexiact.terminal.notes import note

if TYPE_CHECKING:
    import numpy as np

    from flexiact.media.frame_times import Timing

PICTURES_PER_SECOND = 24.0
"""Frame rate of every folder of pictures, because none states its own; the rate of DAVIS' videos."""

PICTURE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def pictures_in(folder: Path) -> list[Path]:
    """Paths to the frames in a folder by number, `NAME9.jpg` before `NAME10.jpg`; hidden and other files are ignored.

    Raises:
        MediaError: If there is no frame, a name has no number or differs from the first one, or a number is missing
            (numbers rise by a constant step) or repeated.
    """
    try:
        files = [path for path in folder.iterdir() if not is_clutter(path) and not path.is_dir()]
    except OSError as error:
        raise MediaError(f"{folder}: cannot be read ({error.strerror or one_line(error)})") from error
    pictures = sorted(path for path in files if path.suffix.lower() in PICTURE_SUFFIXES)
    if not pictures:
        suffixes = ", ".join(sorted(PICTURE_SUFFIXES))
        raise MediaError(f"{folder}: is a folder without pictures, expected a video or its frames ({suffixes})")
    names = [re.fullmatch(r"(.*?)(\d+)", path.stem, re.ASCII) for path in pictures]
    for path, name in zip(pictures, names, strict=True):
        if name is None or names[0] is None or name[1] != names[0][1]:
            first = pictures[0].name if path is not pictures[0] else "00000.jpg"
            raise MediaError(f"{path}: is no numbered frame like {first}; a reference's folder holds its frames alone")
    numbered = sorted((int(name[2]), path) for name, path in zip(names, pictures, strict=True) if name)
    _check_steps(folder, [number for number, _ in numbered])
    return [path for _, path in numbered]


def scan(folder: Path) -> "Timing":
    """Read all frames to check them and return their timing; a note on a change names only the first changed frame.

    Raises:
        MediaError: As for `pictures_in`, and if a picture cannot be read or differs from the first in size.
    """
    from flexiact.media.image import decode_image

    paths = pictures_in(folder)
    first: tuple[int, ...] | None = None
    told: set[str] = set()
    for path in paths:
        frame, changed = decode_image(path)
        if changed and changed not in told:
            told.add(changed)
            note(path, changed)
        first = first or frame.shape
        if frame.shape != first:
            sizes = [f"{width} x {height}" for height, width, _ in (frame.shape, first)]
            raise MediaError(f"{path}: {sizes[0]} pixels when upright, {paths[0].name} has {sizes[1]}")
    from flexiact.media.frame_times import Timing  # loads torch; suites are listed without it

    return Timing(len(paths), PICTURES_PER_SECOND)


def frames(folder: Path, wanted: Container[int] | None = None) -> "Iterator[tuple[int, np.ndarray]]":
    """Frames by their index in the order (None: all), uint8 [H, W, 3], upright; only those are read.

    Raises:
        MediaError: As for `pictures_in`, and if a picture cannot be read.
    """
    from flexiact.media.image import decode_image

    for index, path in enumerate(pictures_in(folder)):
        if wanted is None or index in wanted:
            yield index, decode_image(path)[0]


def _check_steps(folder: Path, numbers: list[int]) -> None:
    """Refuse missing and repeated frames: `numbers` must rise by a constant step."""
    for before, after in zip(numbers, numbers[1:], strict=False):
        if after == before:
            raise MediaError(f"{folder}: two pictures have number {after}")
        if after - before != numbers[1] - numbers[0]:
            step = numbers[1] - numbers[0]
            raise MediaError(
                f"{folder}: frames are missing, after {before} comes {after}; the first two are {step} apart"
            )

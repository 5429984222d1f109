"""A folder of numbered pictures as a video, one picture a frame: how DAVIS and many other datasets keep theirs."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flexiact.image import MediaError, read_image

PICTURES_PER_SECOND = 24.0
"""The rate of DAVIS' videos; a folder of pictures does not say its own."""

PICTURE_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder by their names, numbers in them by value; other files are left alone.

    Raises:
        MediaError: when it holds none.
    """
    found = [p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and not p.name.startswith(".")]
    if not found:
        suffixes = ", ".join(sorted(PICTURE_SUFFIXES))
        raise MediaError(f"{folder}: is a folder without pictures, expected a video or its frames ({suffixes})")
    return sorted(found, key=lambda path: _by_number(path.name))


def read_pictures(folder: Path) -> Iterator[np.ndarray]:
    """The pictures of a folder one after the other: uint8 [H, W, 3], all of one size.

    Raises:
        MediaError: when there is none, one cannot be read, or one is of another size than the first.
    """
    first: tuple[int, ...] | None = None
    for path in pictures_in(folder):
        frame = read_image(path)
        first = first or frame.shape
        if frame.shape != first:
            raise MediaError(f"{path}: {_size(frame.shape)} pixels, the first picture has {_size(first)}")
        yield frame


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]}"


def _by_number(name: str) -> list[tuple[int, str]]:
    """Sorts `9.jpg` before `10.jpg`."""
    return [(int(part), part) if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]

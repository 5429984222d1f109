"""Read an animated WebP as a video with Pillow, because FFmpeg reads only still ones."""

import warnings
from collections.abc import Container, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from flexiact.media.files import MediaError
from flexiact.media.frame_times import Timing
from flexiact.media.image import DAMAGED, to_rgb
from flexiact.terminal.cli import one_line
from flexiact.terminal.notes import note

_UNSET_MS, _SHOWN_MS = 10, 100
"""Browsers show a frame that shall last no longer than the first for the second."""

_PICTURE_RATE = 25.0  # frame rate of a single picture, the same as FFmpeg's


def is_animation(path: Path) -> bool:
    """True if the first bytes of a file are those of a WebP."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(12)
    return start[:4] == b"RIFF" and start[8:] == b"WEBP"


def scan(path: Path) -> Timing:
    """Read the times of the frames. Notes name departures from the header, and converted colours.

    Raises:
        MediaError: If the file is damaged.
    """
    seconds = [0.0]
    for image in _images(path):
        lasting_ms = int(image.info.get("duration", 0))
        seconds.append(seconds[-1] + (lasting_ms if lasting_ms > _UNSET_MS else _SHOWN_MS) / 1000)
        if len(seconds) == 2 and (converted := to_rgb(image)[1]):
            note(path, converted)
    *starts, end = seconds
    timing = Timing.measured(starts, None, end) if len(starts) > 1 else Timing(1, _PICTURE_RATE)
    for what in timing.notes():
        note(path, what)
    return timing


def frames(path: Path, wanted: Container[int] | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """Frames by their index (None: all), uint8 [H, W, 3], transparency on white.

    Raises:
        MediaError: If the file is damaged.
    """
    for index, image in enumerate(_images(path)):
        if wanted is None or index in wanted:
            yield index, to_rgb(image)[0]


def _images(path: Path) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            opened = Image.open(path, formats=["WEBP"])
        with opened as image:
            for index in range(getattr(image, "n_frames", 1)):
                image.seek(index)
                image.load()  # reads the duration of the frame
                yield image
    except DAMAGED as error:
        raise MediaError(f"{path}: no video, or a damaged one: cannot be decoded ({one_line(error)})") from error

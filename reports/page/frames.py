"""Frames of all videos of a case in one picture, which the page cuts up again: a row a video, a column a moment.

Browsers do not stop a video at an exact frame, let alone thirty of them at the same one. Pictures they do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from reports.results import Results
from reports.videos import chosen_cases, first_seed, pictures, reduced

LONGEST_SIDE_PX = 16_000
"""Largest side of a sheet; WebP ends at 16,383."""


@dataclass(frozen=True)
class Gallery:
    """Settings of the gallery.

    Attributes:
        cases: Largest number of cases; of more evenly spaced ones are taken, regardless of their scores.
        moments: Largest number of moments of a video, evenly spaced from the first frame to the last.
        height_px: Largest height of a frame; larger frames are reduced.
        quality: WebP's quality, 0 to 100.
    """

    cases: int = 60
    moments: int = 17
    height_px: int = 96
    quality: int = 90


@dataclass(frozen=True)
class FrameSheet:
    """The stored frames of one case.

    Attributes:
        file: Path, relative to the page.
        size: Width and height of a cell, pixels.
        moments: Number of columns.
        places: Row, width and height of each input's or method's frames by name; the target has one column.
        reasons: Reason, by name, for each input or method that has no frames.
    """

    file: str
    size: tuple[int, int]
    moments: int
    places: Mapping[str, tuple[int, int, int]]
    reasons: Mapping[str, str]


def write_frames(results: Results, folder: Path, settings: Gallery) -> dict[str, FrameSheet]:
    """Write `frames/<number>.webp` below a folder for each shown case that has a video at the first seed.

    Returns:
        Sheets by case.
    """
    run, samples = results.run, first_seed(results.run)
    names = ("reference", "target", *results.order, *results.bound_order)
    places = np.linspace(0, 1, min(settings.moments, int(run.info["backbone"]["num_frames"])))
    sheets = {}
    for number, case in enumerate(chosen_cases(run, settings.cases), start=1):
        height = min(settings.height_px, LONGEST_SIDE_PX // len(names))
        found = {name: pictures(run, samples, case, name, places) for name in names}
        made = {name: reduced(frames, height) for name, frames in found.items() if not isinstance(frames, str)}
        if any(name in made for name in names[2:]):
            reasons = {name: reason for name, reason in found.items() if isinstance(reason, str)}
            picture, sheets[case] = composed(made, reasons, f"frames/{number:03d}.webp")
            path = folder / sheets[case].file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path, quality=settings.quality, method=4)
    return sheets


def composed(made: Mapping[str, np.ndarray], reasons: Mapping[str, str], file: str) -> tuple[np.ndarray, FrameSheet]:
    """Put frames together.

    Args:
        made: Frames by name, uint8 [moments or 1, H, W, 3]; sizes may differ.
        reasons: Reason, by name, for each input or method that has no frames.
        file: Address of the picture, as the page names it.

    Returns:
        The picture, uint8 [names * H, moments * W, 3], and where everything is on it.
    """
    height, width = (max(frames.shape[axis] for frames in made.values()) for axis in (1, 2))
    moments = max(len(frames) for frames in made.values())
    picture = np.zeros((len(made) * height, moments * width, 3), np.uint8)
    places = {}
    for row, (name, frames) in enumerate(made.items()):
        places[name] = (row, frames.shape[2], frames.shape[1])
        for column, frame in enumerate(frames):
            top, left = row * height, column * width
            picture[top : top + frame.shape[0], left : left + frame.shape[1]] = frame
    return picture, FrameSheet(file, (width, height), moments, places, reasons)

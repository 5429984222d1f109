"""One method whose videos were made elsewhere, and the rule by which they are brought to a format.

Rule 3, `whole-clip-3`: the whole video counts. If it has as many frames as the format, they are taken one by one;
otherwise frames are taken at equal times from the first to the last, repeated if there are too few. Each frame is
resized (bicubic, antialiased) until it covers the format, and cut to its middle. The video is read at the rate of the
format. Nothing is mirrored, padded or trimmed in time.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark.suites.case import Format
from benchmark.suites.file_cases import File
from flexiact.media.files import MediaError
from flexiact.media.video import check_clip, first_frame, read_frames
from flexiact.task import Video
from flexiact.terminal.notes import collected

RESIZE_VERSION = 3
"""Version of the rule; raise it when the same file begins to give other frames."""

RESIZE_RULE = f"whole-clip-{RESIZE_VERSION}"
"""Name of the rule in every row of a submitted video."""

NOT_SUBMITTED = "no video was submitted"
"""Error of a row whose file is missing."""

_LOST_SHARE = 0.005  # below it a cut is a matter of rounding
_SAME_RATE = 0.01


@dataclass(frozen=True)
class Submission:
    """Videos of one method.

    Attributes:
        videos: File of each case and seed that the submission is scored on; None where it has none.
        supervision: Material that the method was given and others were not, in the words of those who made it.
    """

    name: str
    videos: Mapping[tuple[str, int], File | None]
    summary: str
    supervision: str

    def taken(self, cell: tuple[str, int], form: Format) -> "Taken":
        """Video of a case and seed at a format.

        Raises:
            MediaError: If there is none, or the file cannot be read.
        """
        file = self.videos[cell]
        if file is None:
            raise MediaError(NOT_SUBMITTED)
        try:
            return take(file, form)
        except MediaError as error:  # tables are published: they name files as the submission does
            raise MediaError(str(error).replace(str(file.path), file.name)) from error

    def describe(self) -> dict[str, Any]:
        """Entry of the submission in run.json."""
        return {
            "kind": "submission",
            "version": RESIZE_VERSION,
            "summary": self.summary,
            "extra_supervision": self.supervision,
            "videos": {video_name(*cell): file and file.sha256 for cell, file in self.videos.items()},
        }


@dataclass(frozen=True, eq=False)
class Taken:
    """A submitted video at a format.

    Attributes:
        video: Frames at the format's size, number and rate.
        row: Columns of its row in samples.parquet that say what the file was and what was changed.
    """

    video: Video
    row: dict[str, Any]


def video_name(case_id: str, seed: int) -> str:
    """Name of a case and seed in a submission's entry of run.json."""
    return f"{case_id}/{seed}"


def take(file: File, form: Format) -> Taken:
    """Read a submitted video by the rule.

    Raises:
        MediaError: If the file cannot be read, or holds a single frame.
    """
    with collected() as notes:
        timing = check_clip(file.path)
        height, width = first_frame(file.path).shape[:2]
    unheld = timing.unheld()
    as_they_are = unheld.count == form.num_frames and unheld.times is None
    indices = range(form.num_frames) if as_they_are else timing.evenly(form.num_frames)
    with collected():  # a note on what is cut away would repeat the one below
        frames = read_frames(file.path, set(indices), form.height, form.width)
    fps = None if file.path.is_dir() else unheld.fps  # pictures state no rate
    untrue = timing.notes() if as_they_are else []  # of frames that are taken at equal times
    said = [what.replace("; ", ", ") for _, what in notes if what not in untrue]
    changes = said + _changed_size(height, width, form)
    changes += [] if as_they_are else [f"has {timing.stored} frames, brought to {form.num_frames} at equal times"]
    if as_they_are and fps and not math.isclose(fps, form.fps, rel_tol=_SAME_RATE):
        changes.append(f"has {fps:.4g} frames/s, read as {form.fps:g}")
    row = {
        "source": file.name,
        "source_frames": timing.stored,
        "source_fps": fps,
        "source_height": height,
        "source_width": width,
        "changed": "; ".join(changes) or None,
    }
    return Taken(Video(np.stack([frames[index] for index in indices]), form.fps), row)


def _changed_size(height: int, width: int, form: Format) -> list[str]:
    if (height, width) == (form.height, form.width):
        return []
    scale = min(height / form.height, width / form.width)
    lost = 1 - scale**2 * form.height * form.width / (height * width)
    cut = f" and cut to its middle ({lost:.0%} of it is lost)" if lost > _LOST_SHARE else ""
    return [f"is resized from {width} x {height} to {form.width} x {form.height}{cut}"]

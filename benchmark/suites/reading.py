"""Read references of files as clips of a format, in the same way as `python -m flexiact` reads its reference."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np

from benchmark.suites.case import Format
from flexiact.media.files import MediaError
from flexiact.media.frame_times import Timing
from flexiact.media.image import note_cut, read_image
from flexiact.media.video import check_clip, first_frame, read_clip, read_frames, read_timing
from flexiact.task import Video
from flexiact.terminal.notes import collected, tell


def read_reference(path: Path, frames: tuple[int, int] | None, form: Format) -> Video:
    """Read the action as a clip of a format: evenly spaced frames from first to last, each resized and centre-cropped.

    The clip has the duration of the format, so a longer reference is played faster. The action is from the first of
    `frames` to the one before the second; None: all frames.

    Raises:
        MediaError: If the video cannot be read or is too short for `frames`.
    """
    size = (form.num_frames, form.height, form.width)
    if frames is None:
        return Video(read_clip(path, *size).frames, form.fps)
    start, end = frames
    timing = read_timing(path)
    _check_span(path, frames, timing.stored)
    times = None if timing.times is None else timing.times[start:end] - timing.times[start]
    indices = [start + index for index in Timing(end - start, timing.fps, times).evenly(form.num_frames)]
    fitted = read_frames(path, set(indices), form.height, form.width)
    return Video(np.stack([fitted[index] for index in indices]), form.fps)


def duration_s(path: Path, frames: tuple[int, int] | None) -> float:
    """Seconds from the first to the last frame of the action; arguments as for `read_reference`.

    Raises:
        MediaError: If the video cannot be read or is too short for `frames`.
    """
    with collected():  # `unreadable` reports these notes
        timing = check_clip(path)
    if frames is None:
        return timing.duration_s()
    _check_span(path, frames, timing.stored)
    return timing.duration_s(*frames)


def unreadable(references: Iterable[tuple[Path, tuple[int, int] | None]], targets: Iterable[Path]) -> list[str]:
    """Faults of files, a line each: of references, as `read_reference` takes them, and of targets.

    Notes tell of headers that are wrong.
    """
    reads: list[Callable[[], object]] = [partial(_check_reference, *each) for each in dict.fromkeys(references)]
    reads += [partial(read_image, path) for path in dict.fromkeys(targets)]
    problems = []
    with collected() as notes:
        for read in reads:
            try:
                read()
            except MediaError as error:
                problems.append(str(error))
    tell(notes)
    return problems


def cut_notes(reference: Path, target: Path, form: Format) -> list[tuple[str, str]]:
    """Notes about a reference and a target that lose a large part when they are cut to a format."""
    with collected():  # `unreadable` has already reported these notes
        frames = {reference: first_frame(reference), target: read_image(target)}
    with collected() as notes:
        for path, frame in frames.items():
            note_cut(path, frame, form.height, form.width)
    return notes


def _check_reference(path: Path, frames: tuple[int, int] | None) -> None:
    if frames is None:
        check_clip(path)
    else:
        _check_span(path, frames, read_timing(path).stored)


def _check_span(path: Path, frames: tuple[int, int], count: int) -> None:
    if frames[1] > count:
        raise MediaError(f"{path}: frames {frames[0]} to {frames[1]} are asked for, it has {count}")

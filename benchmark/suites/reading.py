"""References of files as clips of a format: read as `python -m flexiact` reads its reference."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from benchmark.suites.case import Format
from benchmark.suites.files import FileCase
from flexiact.media.files import MediaError
from flexiact.media.image import read_image
from flexiact.media.video import fit_frames, read_clip, read_video
from flexiact.task import Video


def read_reference(path: Path, frames: tuple[int, int] | None, form: Format) -> Video:
    """The action as a clip of a format: evenly spaced frames, first and last kept, each resized and cut in the middle.

    The clip takes as long as the format says, so that a reference that lasts longer is played faster.

    Args:
        path: Path to the video.
        frames: first and one past the last frame that show the action; None: all of them.
        form: Format that the clip is brought to.

    Raises:
        MediaError: when the video cannot be read or is shorter than `frames` says.
    """
    size = (form.num_frames, form.height, form.width)
    if frames is None:
        return Video(read_clip(path, *size).frames, form.fps)
    whole = read_video(path)
    start, end = frames
    if end > len(whole.frames):
        raise MediaError(f"{path}: frames {start} to {end} are asked for, it has {len(whole.frames)}")
    return Video(fit_frames(Video(whole.frames[start:end], whole.fps), *size).frames, form.fps)


def unreadable(cases: Iterable[FileCase]) -> list[str]:
    """What is wrong with files of cases, a line each; every file is read once."""
    cases = list(cases)
    smallest = Format(num_frames=2, height=1, width=1, fps=1.0)
    references = dict.fromkeys((case.reference.path, case.frames) for case in cases)
    reads: list[Callable[[], object]] = [partial(read_reference, *reference, smallest) for reference in references]
    reads += [partial(read_image, path) for path in dict.fromkeys(case.target.path for case in cases)]
    problems = []
    for read in reads:
        try:
            read()
        except MediaError as error:
            problems.append(str(error))
    return problems

"""What cases of files show, at a backbone's size, length and rate: read as `python -m flexiact` reads its two files."""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path

from benchmark.suites.files import FileCase, refuse
from benchmark.suites.truth import Format, Shown
from flexiact.media.files import MediaError
from flexiact.media.image import fit_image, read_image
from flexiact.media.video import fit_frames, read_clip, read_video
from flexiact.task import Video

_REFERENCES_KEPT = 2  # cases of one reference follow each other


class FileStages:
    """Cases of files at one format.

    Args:
        cases: by id.
        form: what everything is brought to.
    """

    def __init__(self, cases: Mapping[str, FileCase], form: Format) -> None:
        self.cases = cases
        self._form = form
        self._reference = lru_cache(maxsize=_REFERENCES_KEPT)(lambda path, frames: read_reference(path, frames, form))

    def __getitem__(self, case_id: str) -> Shown:
        """What a case shows.

        Raises:
            MediaError: when a file cannot be read.
        """
        case = self.cases[case_id]
        image = fit_image(read_image(case.target.path), self._form.height, self._form.width)
        return Shown(self._reference(case.reference.path, case.frames), image.copy())  # a copy may be written to


def read_reference(path: Path, frames: tuple[int, int] | None, form: Format) -> Video:
    """The action as a clip of a format: evenly spaced frames, first and last kept, each resized and cut in the middle.

    The clip takes as long as the format says, so that a reference that lasts longer is played faster.

    Args:
        path: of the video.
        frames: first and one past the last frame that show the action; None: all of them.
        form: what the clip is brought to.

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


def check_readable(cases: Iterable[FileCase]) -> None:
    """Find damaged files before a large model is loaded.

    Raises:
        CaseError: naming all of them, up to ten.
    """
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
    refuse("suite", problems)

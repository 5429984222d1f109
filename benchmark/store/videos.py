"""Read the stored videos of a run, and tell damaged ones by the digest of their frames."""

from pathlib import Path

from benchmark.store.folder import StoreError
from benchmark.store.schema.rows import SampleRow
from flexiact.media.files import MediaError
from flexiact.media.video import frames_digest, read_video
from flexiact.task import Video
from flexiact.terminal.cli import one_line


class DamagedVideo(ValueError):
    """A stored video whose frames are not those of its row; the message is one line."""


def read_stored(path: Path, row: SampleRow) -> Video:
    """Read the video of a row.

    Raises:
        DamagedVideo: If it is missing, cannot be decoded or has other frames.
        StoreError: If the file is there but cannot be opened, which may pass.
    """
    try:
        path.open("rb").close()
    except FileNotFoundError as error:
        raise DamagedVideo(f"{row.video}: is missing") from error
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        video = read_video(path)
    except (MediaError, OSError) as error:
        raise DamagedVideo(one_line(error)) from error
    if frames_digest(video) != row.video_digest:
        raise DamagedVideo(f"{row.video}: its frames are not those that were stored")
    return video

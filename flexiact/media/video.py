"""Read and write video (PyAV), fit it to a size and length, and digest decoded frames.

Digests cover decoded frames, never files: containers hold write times and identifiers, so the same frames give other
bytes on every write.
"""

import hashlib
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np

from flexiact.cli import one_line
from flexiact.media.files import MediaError, WriteError, replacing
from flexiact.media.frame_folder import PICTURES_PER_SECOND, pictures_in, read_pictures
from flexiact.media.image import check_file, fit_image, read_image
from flexiact.task import Video

MISSING_FRAMES_SHARE = 0.05
"""A file counts as truncated if more than this share of the frames that its header promises is missing."""

FFV1_OPTIONS = {"level": "3", "slicecrc": "1"}
"""A checksum in every slice makes the decoder report damage instead of showing it."""


def read_video(path: str | os.PathLike[str]) -> Video:
    """Decode every frame of the first video stream, or every picture of a folder, and turn it upright.

    Raises:
        MediaError: If the file is missing, holds no video, is damaged, or ends before its header says; if the folder
            holds no pictures that `read_image` can read, or they change size.
    """
    path = Path(path)
    if path.is_dir():
        return Video(np.stack(list(read_pictures(path))), PICTURES_PER_SECOND)
    with _opened(path) as (container, stream):
        frames = [_upright(frame, path) for frame in container.decode(stream)]
        rate = _checked_rate(path, len(frames), container, stream)
    if len({frame.shape for frame in frames}) > 1:
        raise MediaError(f"{path}: frames change size")
    return Video(np.stack(frames), rate)


def read_clip(path: str | os.PathLike[str], num_frames: int, height: int, width: int) -> Video:
    """`fit_frames(read_video(path), ...)` in the memory of one clip: the file is decoded twice and never held whole.

    Frames of a video with fewer than `num_frames` are repeated evenly.

    Raises:
        MediaError: As for `read_video`, and for a single frame, which shows no action.
        ValueError: If a number is below 1.
    """
    path = Path(path)
    count, rate = count_frames(path)
    if count == 1:
        raise MediaError(f"{path}: holds one frame, which shows no action; expected a video")
    indices = _evenly(count, num_frames)
    fitted = read_frames(path, set(indices), height, width)
    return Video(np.stack([fitted[index] for index in indices]), _stretched(rate, count, num_frames))


def count_frames(path: str | os.PathLike[str]) -> tuple[int, float]:
    """Number of frames of a video, and its frame rate; the whole video is decoded, and no frame is stored.

    Raises:
        MediaError: As for `read_video`.
    """
    path = Path(path)
    if path.is_dir():
        return sum(1 for _ in read_pictures(path)), PICTURES_PER_SECOND
    with _opened(path) as (container, stream):
        sizes = [(frame.height, frame.width) for frame in container.decode(stream) if _sound(frame, path)]
        rate = _checked_rate(path, len(sizes), container, stream)
    if len(set(sizes)) > 1:
        raise MediaError(f"{path}: frames change size")
    return len(sizes), rate


def read_frames(
    path: str | os.PathLike[str], indices: Collection[int], height: int, width: int
) -> dict[int, np.ndarray]:
    """Frames of a video by index, each resized by `fit_image`.

    Raises:
        MediaError: As for `read_video`, and if the video ends before the last index.
    """
    path = Path(path)
    if path.is_dir():
        files = dict(enumerate(pictures_in(path)))
        fitted = {index: fit_image(read_image(files[index]), height, width) for index in indices if index in files}
    else:
        with _opened(path) as (container, stream):
            fitted = {
                index: fit_image(_upright(frame, path), height, width)
                for index, frame in enumerate(container.decode(stream))
                if index in indices
            }
    if len(fitted) < len(set(indices)):
        raise MediaError(f"{path}: has no frame {max(indices)}")
    return fitted


def write_lossless(path: str | os.PathLike[str], video: Video) -> None:
    """Write FFV1 in Matroska: `read_video` returns the same frames bit by bit.

    Raises:
        WriteError: If the file cannot be written; nothing is left behind.
    """
    _encode(Path(path), video, codec="ffv1", pixels="bgr0", container="matroska", options=FFV1_OPTIONS)


def write_preview(path: str | os.PathLike[str], video: Video, scale: int = 4) -> None:
    """Write H.264 that browsers play (MP4, 4:2:0, index first), each pixel enlarged to `scale` x `scale`.

    Odd sides lose their last row or column, since 4:2:0 needs even sides.

    Raises:
        WriteError: If the file cannot be written; nothing is left behind.
    """
    if scale < 1:
        raise ValueError(f"scale: expected 1 or more, got {scale}")
    frames = video.frames.repeat(scale, axis=1).repeat(scale, axis=2)
    height, width = (max(2, side - side % 2) for side in frames.shape[1:3])
    if frames.shape[1] < 2 or frames.shape[2] < 2:
        frames = np.pad(frames, ((0, 0), (0, 2), (0, 2), (0, 0)), mode="edge")
    frames = np.ascontiguousarray(frames[:, :height, :width])
    options = {"crf": "16", "preset": "medium", "threads": "1"}
    _encode(Path(path), Video(frames, video.fps), codec="libx264", pixels="yuv420p", container="mp4", options=options)


def frames_digest(video: Video | np.ndarray) -> str:
    """SHA-256 (hex) of the shape and bytes of uint8 frames; it does not depend on frame rate or file format."""
    frames = video.frames if isinstance(video, Video) else video
    if frames.dtype != np.uint8:
        raise ValueError(f"frames: expected uint8, got {frames.dtype}")
    digest = hashlib.sha256(repr(tuple(frames.shape)).encode())
    digest.update(np.ascontiguousarray(frames).data)
    return digest.hexdigest()


def fit_frames(video: Video, num_frames: int, height: int, width: int) -> Video:
    """Resample to `num_frames` evenly spaced frames, with the first and last; resize and centre-crop to height x width.

    The frame rate changes so that the duration stays the same. A video that fits already is returned unchanged.

    Raises:
        ValueError: If a number is below 1.
    """
    count = len(video.frames)
    if (count, *video.frames.shape[1:3]) == (num_frames, height, width):
        return video
    indices = _evenly(count, num_frames)
    fitted = {index: fit_image(video.frames[index], height, width) for index in set(indices)}
    return Video(np.stack([fitted[index] for index in indices]), _stretched(video.fps, count, num_frames))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.video.stream.VideoStream]]:
    """The container and its first video stream; an error in decoding becomes one line."""
    check_file(path, "a video")
    try:
        with av.open(str(path)) as container:
            # FFmpeg would decode any .txt file as a film of a terminal.
            if not container.streams.video or container.format.name == "tty":
                raise MediaError(f"{path}: holds no video stream")
            yield container, container.streams.video[0]
    except (av.error.FFmpegError, EOFError, UnicodeDecodeError) as error:
        raise MediaError(f"{path}: no video, or a damaged one: cannot be decoded ({_reason(error)})") from error


def _checked_rate(
    path: Path, count: int, container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> float:
    """Frame rate, after `count` frames were decoded."""
    rate, expected = stream.average_rate or stream.guessed_rate, _expected_frames(container, stream)
    if not count:
        raise MediaError(f"{path}: holds no frames")
    if not rate:
        raise MediaError(f"{path}: does not say its frame rate")
    if expected - count > MISSING_FRAMES_SHARE * expected:
        raise MediaError(f"{path}: truncated, {count} of {expected} frames")
    return float(rate)


def _evenly(count: int, num_frames: int) -> list[int]:
    """Indices of `num_frames` of `count` frames, evenly spaced from the first to the last."""
    if num_frames < 1:
        raise ValueError(f"num_frames: expected 1 or more, got {num_frames}")
    return [int(index) for index in np.rint(np.linspace(0, count - 1, num_frames))]


def _stretched(fps: float, count: int, num_frames: int) -> float:
    """The rate at which `num_frames` frames last as long as `count` frames at `fps`."""
    return fps * (num_frames - 1) / (count - 1) if count > 1 and num_frames > 1 else fps


def _sound(frame: av.VideoFrame, path: Path) -> bool:
    if frame.is_corrupt:
        raise MediaError(f"{path}: damaged or truncated frame")
    return True


def _upright(frame: av.VideoFrame, path: Path) -> np.ndarray:
    _sound(frame, path)
    pixels = frame.to_ndarray(format="rgb24")
    quarter_turns = round(frame.rotation / 90) % 4  # counter-clockwise, as np.rot90 turns
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns)) if quarter_turns else pixels


def _expected_frames(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> int:
    """Number of frames that the header promises; 0 if it states none."""
    if stream.frames:
        return stream.frames
    rate = stream.average_rate
    if not rate:
        return 0
    if stream.duration and stream.time_base:
        return round(stream.duration * stream.time_base * rate)
    if container.duration and len(container.streams) == 1:  # with sound, it is the duration of the longer stream
        return round(Fraction(container.duration, av.time_base) * rate)
    return 0


def _encode(path: Path, video: Video, *, codec: str, pixels: str, container: str, options: dict[str, str]) -> None:
    rate = Fraction(video.fps).limit_denominator(1001)
    try:
        with replacing(path) as partial, av.open(str(partial), "w", format=container) as output:
            if container == "mp4":
                output.options["movflags"] = "+faststart"
            stream = cast(av.VideoStream, output.add_stream(codec, rate=rate, options=options))
            stream.height, stream.width = video.frames.shape[1:3]
            stream.pix_fmt = pixels
            for pixels_rgb in video.frames:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_rgb), format="rgb24")
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    except av.error.FFmpegError as error:
        raise WriteError(f"{path}: cannot be written ({_reason(error)})") from error


def _reason(error: BaseException) -> str:
    """The error in one line; FFmpeg's own text would name the path again."""
    if isinstance(error, av.error.FFmpegError):
        return " ".join(str(error.strerror).split()) or type(error).__name__
    return one_line(error)

"""Read and write video (PyAV), fit it to a size and length, and digest decoded frames.

Digests cover decoded frames, never files: containers hold write times and identifiers, so that every write of the same
frames gives other bytes.
"""

import hashlib
import os
from collections.abc import Collection, Container, Iterator
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np

from flexiact.media import animation, film, frame_folder
from flexiact.media.files import MediaError, WriteError, replacing
from flexiact.media.frame_times import Timing
from flexiact.media.image import fit_image, note_cut
from flexiact.task import Video

MOST_GIB = 8
"""Size of the frames that `read_video` keeps, in GiB; `read_clip` keeps only those of its clip."""

FFV1_OPTIONS = {"level": "3", "slicecrc": "1"}
"""Options of FFV1; with a checksum in every slice the decoder reports damage instead of showing it."""


def read_video(path: str | os.PathLike[str]) -> Video:
    """Read all frames, upright, of a video file, an animated WebP or a folder of pictures; they are decoded twice.

    A last frame that is held comes twice, see `Timing`.

    Raises:
        MediaError: As for `read_timing`.
    """
    timing, frames = read_timing(path), list[np.ndarray]()
    for _, frame in _frames(Path(path)):
        frames.append(frame)
        if frame.nbytes * len(frames) > MOST_GIB * 2**30:
            raise MediaError(f"{path}: more than {MOST_GIB} GiB of frames; cut it to the action, or make it smaller")
    frames += frames[-1:] * timing.held
    return Video(np.stack(frames), timing.fps, timing.times)


def read_clip(
    path: str | os.PathLike[str],
    num_frames: int,
    height: int,
    width: int,
    window_s: tuple[float, float] | None = None,
) -> Video:
    """Read `fit_frames(read_video(path), ...)`, but keep only the clip, so that a long film needs no more memory.

    If there are too few frames, they are repeated evenly. A note tells if much of the picture is cut away. `window_s`
    is beginning and length in seconds of the part that is read; None: the whole video.

    Raises:
        MediaError: As for `read_timing`, and for a single frame, which shows no action.
        ValueError: If a number or side is below 1, or the window does not lie within the video.
    """
    timing = check_clip(path)
    if window_s is None:
        indices, fps = timing.evenly(num_frames), timing.stretched(num_frames)
    else:
        indices, fps = timing.window(*window_s, num_frames), (num_frames - 1) / window_s[1]
    fitted = read_frames(path, set(indices), height, width)
    return Video(np.stack([fitted[index] for index in indices]), fps)


def check_clip(path: str | os.PathLike[str]) -> Timing:
    """Read the timing of a video that shows an action.

    Raises:
        MediaError: As for `read_timing`, and for a single frame.
    """
    timing = read_timing(path)
    if timing.count == 1:
        raise MediaError(f"{path}: holds one frame, which shows no action; expected a video")
    return timing


def read_timing(path: str | os.PathLike[str]) -> Timing:
    """Read the times of a video's frames; all are decoded, none is kept. Notes name departures from the header.

    Raises:
        MediaError: If the file is missing, holds no video, is damaged, or ends before its header says; if the folder
            is not one of pictures that `read_image` can read; if frames change size.
    """
    path = Path(path)
    if path.is_dir():
        return frame_folder.scan(path)
    return animation.scan(path) if animation.is_animation(path) else film.scan(path)


def first_frame(path: Path) -> np.ndarray:
    """The first frame of a video, upright: uint8 [H, W, 3].

    Raises:
        MediaError: If no frame can be read.
    """
    for _, frame in _frames(path, {0}):
        return frame
    raise MediaError(f"{path}: holds no frames")


def read_frames(
    path: str | os.PathLike[str], indices: Collection[int], height: int, width: int
) -> dict[int, np.ndarray]:
    """Read frames of a video by index and fit each with `fit_image`; a note tells if that cuts much away.

    Raises:
        MediaError: As for `read_timing`, and if the video ends before the last index.
    """
    path, fitted = Path(path), dict[int, np.ndarray]()
    for index, frame in _frames(path, indices):
        if not fitted:
            note_cut(path, frame, height, width)
        fitted[index] = fit_image(frame, height, width)
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
    """Write H.264 that browsers play (MP4, 4:2:0, index first), with each pixel enlarged to `scale` x `scale`.

    Odd sides lose their last row or column, because 4:2:0 needs even sides.

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
    """Resample to `num_frames` frames at equal times, first and last kept; resize and centre-crop to height x width.

    The frame rate changes so that the duration stays the same. A video that fits already is returned unchanged.

    Raises:
        ValueError: If a number is below 1.
    """
    timing = Timing.of(video)
    if timing.times is None and video.frames.shape[:3] == (num_frames, height, width):
        return video
    indices = timing.evenly(num_frames)
    fitted = {index: fit_image(video.frames[index], height, width) for index in set(indices)}
    return Video(np.stack([fitted[index] for index in indices]), timing.stretched(num_frames))


def _frames(path: Path, wanted: Container[int] | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """Frames by their index (None: all), uint8 [H, W, 3], upright."""
    if path.is_dir():
        return frame_folder.frames(path, wanted)
    return (animation if animation.is_animation(path) else film).frames(path, wanted)


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
        raise WriteError(f"{path}: cannot be written ({film.reason(error)})") from error

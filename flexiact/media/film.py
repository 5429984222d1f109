"""Read a video file with FFmpeg (PyAV): choose the film's stream, and find the times and orientation of its frames."""

from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from PIL import Image

from flexiact.media.colour import HDR, WIDE
from flexiact.media.files import MediaError
from flexiact.media.frame_times import Timing, spread
from flexiact.media.image import FOREIGN_PICTURES, MOST_PIXELS, check_file, foreign_format, to_rgb
from flexiact.media.orientation import orientation
from flexiact.terminal.cli import one_line
from flexiact.terminal.notes import note

_NO_FILMS = {"tty", "concat", "hls", "dash", "imf", "sdp", "applehttp"}
MOST_FRAMES = 100_000
"""Longest film; over an hour at 24 frames a second."""

MISSING_SHARE = 0.05
"""A file whose frames and seconds fall short of its header by more than this share counts as truncated."""

_PICTURES = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
_RATE_TOLERANCE = 0.05
_GIF_END = b"\0;"  # of the last block, and of the file; some programs write something behind it
_TAIL_BYTES = 4096
_WHOLE_FILE_S = "asf"  # a format whose streams state the duration of the file


@dataclass
class _Seen:
    """Findings of one pass over the frames.

    Attributes:
        seconds: Timestamp of each frame; None if it has none.
        sizes: Heights and widths that occur.
        end: End of the last frame in seconds; 0 if frames have no timestamps.
        others_end: End of the last packet of sound, subtitles and so on in seconds.
        turns: Orientations that occur, see `orientation`.
        hdr: Name of the transfer function of a film with high dynamic range; "" for others.
        wide: Name of primaries that are wider than those of sRGB; "" for others.
        interlaced: True if a frame holds two half pictures of two moments.
    """

    seconds: list[float | None] = field(default_factory=list)
    sizes: set[tuple[int, int]] = field(default_factory=set)
    end: float = 0.0
    others_end: float = 0.0
    turns: set[tuple[bool, bool, bool]] = field(default_factory=set)
    hdr: str = ""
    wide: str = ""
    interlaced: bool = False

    def add(self, frame: av.VideoFrame) -> None:
        """Record a frame."""
        self.seconds.append(frame.time)
        self.sizes.add((frame.height, frame.width))
        self.turns.add(orientation(frame))
        self.hdr, self.wide = HDR.get(frame.color_trc, ""), WIDE.get(frame.color_primaries, "")
        self.interlaced = self.interlaced or frame.interlaced_frame
        if frame.time is not None and frame.time_base:
            self.end = max(self.end, frame.time + float((frame.duration or 0) * frame.time_base))

    def add_other(self, packet: av.Packet) -> None:
        """Record a packet of another stream than the film's."""
        if packet.pts is not None and packet.time_base:
            self.others_end = max(self.others_end, float((packet.pts + (packet.duration or 0)) * packet.time_base))

    def notes(self) -> list[str]:
        """Departures from what a player shows."""
        turned = self.turns != {(False, False, False)}
        notes = ["is turned or mirrored as its header says, the way players show it"] if turned else []
        if self.hdr:
            notes.append(f"is HDR ({self.hdr}), read without tone mapping: colours look flat; convert it to SDR first")
        elif self.wide:
            notes.append(f"has colours of {self.wide}, taken as sRGB: they look pale; convert it to BT.709 first")
        if self.interlaced:
            notes.append("is interlaced, read as it stands: what moves has combed edges; deinterlace it first")
        return notes


def scan(path: Path) -> Timing:
    """Read the times of the frames; all are decoded, none is kept. Notes name departures from the header.

    Raises:
        MediaError: If the file is missing, holds no film, is damaged, ends before its header says, or its frames change
            size.
    """
    seen = _Seen()
    with opened(path) as (container, stream):
        for packet in container.demux():
            if packet.stream.index != stream.index:
                seen.add_other(packet)
                continue
            for frame in stream.decode(packet):
                _check_sound(frame, path)
                seen.add(frame)
            if len(seen.seconds) > MOST_FRAMES:
                raise MediaError(f"{path}: holds more than {MOST_FRAMES} frames; cut it to the action")
        if not seen.seconds:
            raise MediaError(f"{path}: holds no frames")
        if len(seen.sizes) > 1:
            raise MediaError(f"{path}: frames change size; encode it again at one size")
        if len(seen.turns) > 1:
            raise MediaError(f"{path}: only some frames are turned or mirrored; encode it again, all upright")
        _check_whole(path, seen, container, stream)
        start = _start(seen, stream)
        # Only of a film without a missing or hidden frame the header's end is that of the last frame.
        end = start + _stated_s(container, stream, start) if stream.frames == len(seen.seconds) else seen.end
        told, guessed = (float(rate) if rate else None for rate in (stream.average_rate, stream.guessed_rate))
        notes = seen.notes() + _notes(container, stream)
    for what in notes:
        note(path, what)
    return _timing(path, seen.seconds, end, told or guessed, told)


def frames(path: Path, wanted: Container[int] | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """Frames by their index (None: all), uint8 [H, W, 3], upright.

    Raises:
        MediaError: If the file is missing, holds no film, or is damaged.
    """
    with opened(path) as (container, stream):
        for index, frame in enumerate(container.decode(stream)):
            if wanted is None or index in wanted:
                _check_sound(frame, path)
                yield index, _upright(frame)


@contextmanager
def opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.video.stream.VideoStream]]:
    """Open the container and its film, the first video stream that is no cover picture; errors become one line."""
    check_file(path, "a video")
    opened_at_all = False
    try:
        # The whole path, since FFmpeg reads the name of another protocol in a name such as `concat:a`.
        with av.open(str(path.absolute()), options={"format_whitelist": _films()}) as container:
            opened_at_all, films = True, _films_in(container)
            if not films:
                pictures = ", only a cover picture" if container.streams.video else ""
                raise MediaError(f"{path}: holds no video stream{pictures}")
            film = films[0]
            if film.codec_context is None:
                why = foreign_format(path, FOREIGN_PICTURES) or "there is no decoder for it"
                raise MediaError(f"{path}: cannot be decoded ({why})")
            if film.width * film.height > MOST_PIXELS:
                raise MediaError(f"{path}: frames of {film.width} x {film.height} pixels, {MOST_PIXELS} at most")
            film.codec_context.options = {"max_pixels": str(MOST_PIXELS)}  # frames may change size
            yield container, film
    except (av.error.FFmpegError, EOFError, UnicodeDecodeError) as error:
        if isinstance(error, av.error.ArgumentError) and not opened_at_all:
            raise MediaError(f"{path}: holds no video stream") from error  # its format is none of `_films`
        why = foreign_format(path, FOREIGN_PICTURES) or reason(error)
        raise MediaError(f"{path}: no video, or a damaged one: cannot be decoded ({why})") from error


@cache
def _films() -> str:
    """Formats that FFmpeg may open: it would decode a text as a film of a terminal, and read files of a playlist."""
    return ",".join(sorted(av.formats_available - _NO_FILMS))


def _films_in(container: av.container.InputContainer) -> list[av.video.stream.VideoStream]:
    """Video streams that are no pictures; if all of them may be covers, the longest one."""
    streams = [stream for stream in container.streams.video if not stream.disposition & _PICTURES]
    films = [stream for stream in streams if not _looks_like_cover(stream)]
    return films or sorted(streams, key=lambda stream: -stream.frames)[:1]


def _notes(container: av.container.InputContainer, stream: av.video.stream.VideoStream) -> list[str]:
    """Parts of a film that are passed over, or changed as its headers say."""
    notes, pixel, count = [], stream.sample_aspect_ratio, len(_films_in(container))
    if pixel and pixel != 1:
        notes.append(f"has pixels of {pixel.numerator}:{pixel.denominator}, read as squares: shapes are distorted")
    if count > 1:
        notes.append(f"holds {count} films, of which the first is read")
    if stream.metadata.get("alpha_mode") == "1":
        notes.append("has transparency, which is not read")
    return notes


def _looks_like_cover(stream: av.video.stream.VideoStream) -> bool:
    """True if a stream may be a cover that is not marked as one: it has a single frame or a picture format."""
    codec = stream.codec_context.name if stream.codec_context else ""
    return stream.frames == 1 or codec in {"mjpeg", "png", "bmp", "gif", "webp"}


def reason(error: BaseException) -> str:
    """The reason of an error in one line, without the path that FFmpeg's own text repeats."""
    if isinstance(error, av.error.FFmpegError):
        return " ".join(str(error.strerror).split()) or type(error).__name__
    return one_line(error)


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """Pixels of a frame, uint8 [H, W, 3], upright, with transparency turned white."""
    if any(component.is_alpha for component in frame.format.components):
        pixels = to_rgb(Image.fromarray(frame.to_ndarray(format="rgba")))[0]
    else:
        pixels = frame.to_ndarray(format="rgb24")
    swapped, mirrored, upside_down = orientation(frame)
    pixels = pixels.swapaxes(0, 1) if swapped else pixels
    pixels = pixels[:, ::-1] if mirrored else pixels
    return np.ascontiguousarray(pixels[::-1] if upside_down else pixels)


def _timing(path: Path, seconds: Sequence[float | None], end: float, rate: float | None, told: float | None) -> Timing:
    """Timing by the timestamps; if they fall or a frame has none, timing by the header's rate.

    Args:
        path: File that notes name.
        seconds: Timestamp of each frame; None if it has none.
        end: Time in seconds until which the last frame is shown.
        rate: Rate of the header, or FFmpeg's guess; None if there is neither.
        told: Rate of the header; None if there is none.

    Raises:
        MediaError: If neither says the rate.
    """
    known = [second for second in seconds if second is not None]
    if len(known) == len(seconds) > 1 and (rising := spread(known)):
        timing = Timing.measured(rising, rate, end)
        notes = timing.notes()
        notes += ["has frames of one timestamp, which are spread up to the next"] * (rising != known)
        if timing.times is None and not timing.held and told and abs(timing.fps / told - 1) > _RATE_TOLERANCE:
            notes.append(f"says {told:g} frames/s, its timestamps {timing.fps:.4g}, which are taken")
        for what in notes:
            note(path, what)
        return timing
    if not rate:
        raise MediaError(f"{path}: does not say its frame rate")
    if len(known) == len(seconds) > 1:
        note(path, f"has timestamps that do not rise: its frames are taken as {rate:g} a second")
    return Timing(len(seconds), rate)


def _last_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return file.read()


def _check_sound(frame: av.VideoFrame, path: Path) -> None:
    if frame.is_corrupt:
        raise MediaError(f"{path}: damaged or truncated frame")


def _check_whole(
    path: Path, seen: _Seen, container: av.container.InputContainer, stream: av.video.stream.VideoStream
) -> None:
    """Refuse a file that ends early, by frames and by time if the header states both.

    Frames alone are no proof: an edit list hides some, and a film with a variable rate has fewer than its header's rate
    implies.
    """
    count, start = len(seen.seconds), _start(seen, stream)
    lasting = max(seen.end - start, count / float(stream.average_rate) if stream.average_rate else 0.0)
    promised_s = _stated_s(container, stream, start)
    if not promised_s and container.duration:  # the end of the longest stream, from second 0
        promised_s = float(Fraction(container.duration, av.time_base)) - max(start, 0.0)
        lasting = max(lasting, seen.others_end - start)
    if container.format.name == "gif" and _GIF_END not in _last_bytes(path):
        raise MediaError(f"{path}: truncated, its end is missing")
    fewer = stream.frames and stream.frames - count > MISSING_SHARE * stream.frames
    shorter = promised_s and promised_s - lasting > MISSING_SHARE * promised_s
    if fewer and (shorter or not promised_s):
        raise MediaError(f"{path}: truncated, {count} of {stream.frames} frames")
    if shorter and not stream.frames:
        raise MediaError(f"{path}: truncated, {lasting:.3g} of {promised_s:.3g} s")


def _start(seen: _Seen, stream: av.video.stream.VideoStream) -> float:
    """Second at which a film begins; frames before the first whole one cannot be decoded."""
    starts = [seen.seconds[0] or 0.0]
    if stream.start_time is not None and stream.time_base:
        starts.append(float(stream.start_time * stream.time_base))
    return min(starts)


def _stated_s(container: av.container.InputContainer, stream: av.video.stream.VideoStream, start: float) -> float:
    """Seconds that a film lasts by its own header; 0 if that does not say it."""
    if not stream.duration or not stream.time_base or container.format.name == _WHOLE_FILE_S:
        return 0.0
    stated = float(stream.duration * stream.time_base)
    # With a table of frames, as in MP4, the duration holds the nothing before the first one.
    return max(stated - max(start, 0.0), 0.0) if stream.frames else stated

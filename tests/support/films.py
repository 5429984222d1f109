"""Films with odd clocks and headers, as recorders, phones and cutters write them."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SPEED = 24
"""Of the square in `moving`, px a second."""


def moving(seconds: Sequence[float], width: int = 160) -> list[np.ndarray]:
    """A bright square at each of some moments; its left edge is at SPEED * second."""
    frames = []
    for second in seconds:
        frame = np.zeros((32, width, 3), dtype=np.uint8)
        left = round(SPEED * second)
        frame[8:24, left : left + 16] = 255
        frames.append(frame)
    return frames


def places(frames: np.ndarray) -> list[int]:
    """Left edge of the square in each frame."""
    return [int(np.argmax(frame[16].min(-1) > 150)) for frame in frames]


def write_film(
    path: Path,
    frames: Sequence[np.ndarray],
    seconds: Sequence[float],
    *,
    rate: int = 24,
    codec: str = "libx264",
    matrix: Sequence[int] | None = None,
    options: Mapping[str, str] | None = None,
) -> Path:
    """Encode frames with timestamps of their own.

    Args:
        path: its suffix says the format.
        frames: uint8 [H, W, 3].
        seconds: of each frame, whole milliseconds.
        rate: what the header says, where the format keeps a rate.
        codec: of FFmpeg.
        matrix: display matrix, nine integers.
        options: of the codec.
    """
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=rate, options=dict(options or {}))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = {"gif": "gray", "ffv1": "bgr0"}.get(codec, "yuv420p")
        stream.codec_context.time_base = Fraction(1, 1000)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for pixels, second in zip(frames, seconds, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(1000 * second), Fraction(1, 1000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def remuxed(source: Path, path: Path, earlier_s: float, until_s: float = np.inf) -> Path:
    """Copy packets without encoding them, `earlier_s` seconds earlier, up to `until_s`: a cut without loss."""
    with av.open(str(source)) as given, av.open(str(path), "w") as output:
        film = given.streams.video[0]
        copy = output.add_stream_from_template(film)
        shift = round(earlier_s / film.time_base)
        for packet in given.demux(film):
            if packet.size and packet.pts * film.time_base < until_s:
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = copy
                output.mux(packet)
    return path

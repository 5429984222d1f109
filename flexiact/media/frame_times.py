"""Times of a video's frames, and the choice of frames for a clip with equal steps in time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flexiact.task import Video

HELD = 1.5
"""A last frame that lasts longer than so many of the usual steps, and of the step before it, counts as held."""

SHARED = 0.1
"""Share of frames that may have the timestamp of the one before."""

_CLOSE_S, _CLOSE_SHARE = 0.002, 0.01  # containers round times to milliseconds, and headers their rates


def spread(seconds: Sequence[float]) -> list[float] | None:
    """Rising times: frames that share a timestamp lie evenly between it and the next; None if times fall or stall.

    More than one frame in ten without a time of its own is no clock.
    """
    times = np.asarray(seconds, dtype=np.float64)
    kept = np.flatnonzero(np.diff(times, prepend=-np.inf))
    if len(kept) < 2 or (np.diff(times) < 0).any() or len(times) - len(kept) > SHARED * len(times):
        return None
    step = float(np.median(np.diff(times[kept])))
    # The last group, if it shares a time, goes on at the usual step.
    ends = np.append(kept, len(times)), np.append(times[kept], times[-1] + step * (len(times) - kept[-1]))
    return [float(time) for time in np.interp(np.arange(len(times)), *ends)]


@dataclass(frozen=True, eq=False)
class Timing:
    """Number and times of a video's frames.

    Attributes:
        count: Number of frames, where a held last frame counts twice.
        fps: Frames per second; the mean if the rate varies.
        times: Times in seconds from the first frame, float64 [count], rising; None: evenly spaced, at `fps`.
        held: True if the file's last frame stands longer than others. Its second time is one such step before its end.
    """

    count: int
    fps: float
    times: np.ndarray | None = None
    held: bool = False

    @classmethod
    def of(cls, video: Video) -> "Timing":
        """Timing of decoded frames."""
        return cls(len(video.frames), video.fps, video.times)

    @classmethod
    def measured(cls, seconds: Sequence[float] | np.ndarray, rate: float | None, end: float = 0.0) -> "Timing":
        """Timing of rising timestamps; the rate is constant if all lie within half a step of even spacing.

        Args:
            seconds: Times of the frames in seconds, rising, at least two.
            rate: Rate in the header, which is used if the timestamps agree with it; None if there is none.
            end: Time in seconds until which the last frame is shown; 0 if it is not known.
        """
        steps = np.diff(seconds)
        step = max(float(np.median(steps)), float(steps[-1]))
        held = bool(end - seconds[-1] > HELD * step)
        times = np.asarray([*seconds, *[end - step] * held], dtype=np.float64) - seconds[0]
        last = len(times) - 1
        mean = last / times[-1]
        agrees = rate and abs(last / rate - times[-1]) < _CLOSE_S + _CLOSE_SHARE * times[-1]
        for fps in (rate if agrees else None, mean):
            if fps and np.abs(times - np.arange(last + 1) / fps).max() < 0.5 / fps:
                return cls(len(times), float(fps), held=held)
        return cls(len(times), float(mean), times, held)

    @property
    def stored(self) -> int:
        """Number of frames in the file."""
        return self.count - self.held

    def unheld(self) -> "Timing":
        """Timing of the frames in the file, as if the last one were not held."""
        if not self.held:
            return self
        return Timing(self.stored, self.fps) if self.times is None else Timing.measured(self.times[:-1], None)

    def notes(self) -> list[str]:
        """Departures from frames that follow one another at one rate."""
        varies = self.unheld().times is not None
        notes = ["has a variable frame rate: its frames are taken at equal times, not one after the other"] * varies
        return notes + ["holds its last frame, which counts for as long as it is shown"] * self.held

    def evenly(self, num_frames: int) -> list[int]:
        """Indices in the file of `num_frames` frames at equal times, from the first to the last, repeated if necessary.

        Raises:
            ValueError: If `num_frames` is below 1.
        """
        if num_frames < 1:
            raise ValueError(f"num_frames: expected 1 or more, got {num_frames}")
        if self.times is None:
            return self._in_file(np.rint(np.linspace(0, self.count - 1, num_frames)))
        return self._in_file(self._shown(np.linspace(0, self.times[-1], num_frames)))

    def check_window(self, start_s: float, length_s: float) -> None:
        """Check that a part lies within the video, up to half a step.

        Raises:
            ValueError: If it does not.
        """
        whole_s = self.duration_s()
        step = 1 / self.fps if self.times is None else float(np.median(np.diff(self.times)))
        if not 0 <= start_s <= whole_s - length_s + step / 2:
            raise ValueError(
                f"start: a clip of {length_s:.2f} s from {start_s:g} s leaves the video of {whole_s:.2f} s"
            )

    def window(self, start_s: float, length_s: float, num_frames: int) -> list[int]:
        """Indices in the file of frames at equal times of a part, which keeps its own speed.

        Raises:
            ValueError: If the part does not lie within the video.
        """
        self.check_window(start_s, length_s)
        moments = np.linspace(start_s, start_s + length_s, num_frames)
        return self._in_file(np.rint(moments * self.fps) if self.times is None else self._shown(moments))

    def duration_s(self, start: int = 0, end: int | None = None) -> float:
        """Seconds from frame `start` to the frame before `end`; the last one by default."""
        last = (self.count if end is None else end) - 1
        return float((last - start) / self.fps if self.times is None else self.times[last] - self.times[start])

    def stretched(self, num_frames: int) -> float:
        """The rate at which `num_frames` frames last as long as this video."""
        return self.fps * (num_frames - 1) / (self.count - 1) if self.count > 1 and num_frames > 1 else self.fps

    def steadily(self, fps: float) -> tuple[Sequence[int], float]:
        """Indices in the file at a constant rate, and that rate: the video's own, or `fps` if its own varies."""
        if self.times is None:
            return self._in_file(np.arange(self.count)) if self.held else range(self.count), self.fps
        return self._in_file(self._shown(np.arange(int(self.times[-1] * fps) + 1) / fps)), fps

    def _in_file(self, indices: np.ndarray) -> list[int]:
        return [int(index) for index in np.minimum(indices, self.stored - 1)]

    def _shown(self, moments: np.ndarray) -> np.ndarray:
        """Indices of the frames shown at some times in seconds.

        A frame counts from half the shortest step before its time until the next one counts. With equal steps this is
        the nearest frame.
        """
        assert self.times is not None
        early = np.diff(self.times).min() / 2
        return np.searchsorted(self.times, moments + early, side="right") - 1

"""Times of a video's frames, and the choice of frames for a clip with equal steps in time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flexiact.task import Video


@dataclass(frozen=True, eq=False)
class Timing:
    """Number and times of a video's frames.

    Attributes:
        count: Number of frames.
        fps: Frames per second; the mean if the rate varies.
        times: Times in seconds from the first frame, float64 [count], rising; None: evenly spaced, at `fps`.
    """

    count: int
    fps: float
    times: np.ndarray | None = None

    @classmethod
    def of(cls, video: Video) -> "Timing":
        """Timing of decoded frames."""
        return cls(len(video.frames), video.fps, video.times)

    @classmethod
    def measured(cls, seconds: Sequence[float], rate: float | None) -> "Timing":
        """Timing of rising timestamps; the rate is constant if all lie within half a step of even spacing.

        Args:
            seconds: Times of the frames in seconds, rising, at least two.
            rate: Rate in the header, which is used if the timestamps agree with it; None if there is none.
        """
        times = np.asarray(seconds, dtype=np.float64) - seconds[0]
        mean = (len(times) - 1) / times[-1]
        for fps in (rate, mean):
            if fps and np.abs(times - np.arange(len(times)) / fps).max() < 0.5 / fps:
                return cls(len(times), float(fps))
        return cls(len(times), float(mean), times)

    def evenly(self, num_frames: int) -> list[int]:
        """Indices of `num_frames` frames at equal times, from the first to the last; frames are repeated if necessary.

        Raises:
            ValueError: If `num_frames` is below 1.
        """
        if num_frames < 1:
            raise ValueError(f"num_frames: expected 1 or more, got {num_frames}")
        if self.times is None:
            return [int(index) for index in np.rint(np.linspace(0, self.count - 1, num_frames))]
        return self._shown(np.linspace(0, self.times[-1], num_frames))

    def part(self, start: int, end: int) -> "Timing":
        """Timing of the frames from `start` to the one before `end`."""
        if self.times is None:
            return Timing(end - start, self.fps)
        times = self.times[start:end] - self.times[start]
        return Timing(end - start, float((len(times) - 1) / times[-1]) if len(times) > 1 else self.fps, times)

    def window(self, start_s: float, length_s: float) -> tuple[int, int]:
        """First frame, and one past the last frame, of a part that begins at a time and keeps its own speed.

        Raises:
            ValueError: If the part does not lie within the video.
        """
        whole_s = self.duration_s()
        if not 0 <= start_s <= whole_s - length_s + 0.5 / self.fps:
            raise ValueError(
                f"start: a clip of {length_s:.2f} s from {start_s:g} s leaves the video of {whole_s:.2f} s"
            )
        ends = np.array([start_s, start_s + length_s])
        shown = [int(index) for index in np.rint(ends * self.fps)] if self.times is None else self._shown(ends)
        return shown[0], min(shown[1], self.count - 1) + 1

    def duration_s(self, start: int = 0, end: int | None = None) -> float:
        """Seconds from frame `start` to the frame before `end`; the last one by default."""
        last = (self.count if end is None else end) - 1
        return float((last - start) / self.fps if self.times is None else self.times[last] - self.times[start])

    def stretched(self, num_frames: int) -> float:
        """The rate at which `num_frames` frames last as long as this video."""
        return self.fps * (num_frames - 1) / (self.count - 1) if self.count > 1 and num_frames > 1 else self.fps

    def steadily(self, fps: float) -> tuple[Sequence[int], float]:
        """Indices of frames at a constant rate, and that rate: the video's own, or `fps` if its own varies."""
        if self.times is None:
            return range(self.count), self.fps
        return self._shown(np.arange(int(self.times[-1] * fps) + 1) / fps), fps

    def _shown(self, moments: np.ndarray) -> list[int]:
        """Indices of the frames shown at some times in seconds.

        A frame counts from half the shortest step before its time until the next one counts. With equal steps this is
        the nearest frame.
        """
        assert self.times is not None
        early = np.diff(self.times).min() / 2
        return [int(index) for index in np.searchsorted(self.times, moments + early, side="right") - 1]

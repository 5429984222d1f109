"""When the frames of a video are shown, and which of them stand for a clip of equal steps in time."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flexiact.task import Video


@dataclass(frozen=True, eq=False)
class Timing:
    """When the frames of a video are shown.

    Attributes:
        count: number of frames.
        fps: their rate; the mean where it varies.
        times: float64 [count], seconds from the first frame, rising; None: evenly, at `fps`.
    """

    count: int
    fps: float
    times: np.ndarray | None = None

    @classmethod
    def of(cls, video: Video) -> "Timing":
        """Of decoded frames."""
        return cls(len(video.frames), video.fps, video.times)

    @classmethod
    def measured(cls, seconds: Sequence[float], rate: float | None) -> "Timing":
        """From the timestamps, where they rise: steady when no frame is half a step or more away from even ones.

        Args:
            seconds: Rising times of the frames, at least two.
            rate: Rate in the header, None if it has none; it is taken if the timestamps agree.
        """
        times = np.asarray(seconds, dtype=np.float64) - seconds[0]
        mean = (len(times) - 1) / times[-1]
        for fps in (rate, mean):
            if fps and np.abs(times - np.arange(len(times)) / fps).max() < 0.5 / fps:
                return cls(len(times), float(fps))
        return cls(len(times), float(mean), times)

    def evenly(self, num_frames: int) -> list[int]:
        """Indices of `num_frames` frames at equal times, first and last among them; frames are repeated if need be.

        Raises:
            ValueError: If `num_frames` is below 1.
        """
        if num_frames < 1:
            raise ValueError(f"num_frames: expected 1 or more, got {num_frames}")
        if self.times is None:
            return [int(index) for index in np.rint(np.linspace(0, self.count - 1, num_frames))]
        return self._shown(np.linspace(0, self.times[-1], num_frames))

    def stretched(self, num_frames: int) -> float:
        """The rate at which `num_frames` frames last as long as all of these."""
        return self.fps * (num_frames - 1) / (self.count - 1) if self.count > 1 and num_frames > 1 else self.fps

    def steadily(self, fps: float) -> tuple[Sequence[int], float]:
        """Indices of frames at a constant rate, and that rate: the video's own, or `fps` where its own varies."""
        if self.times is None:
            return range(self.count), self.fps
        return self._shown(np.arange(int(self.times[-1] * fps) + 1) / fps), fps

    def _shown(self, moments: np.ndarray) -> list[int]:
        """The frames on screen at some seconds, each from half the shortest step before its time on.

        So the nearest frame is taken where steps are equal, and a frame that is held stands until the next one comes.
        """
        assert self.times is not None
        early = np.diff(self.times).min() / 2
        return [int(index) for index in np.searchsorted(self.times, moments + early, side="right") - 1]

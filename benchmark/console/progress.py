"""How far a run is and how long it will take, on a terminal as one bar, elsewhere as a line now and then."""

import sys
import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

_LINE_EVERY_S = 20.0


class Progress:
    """Counts finished work by kind; kinds differ a thousandfold in cost, so the time left is estimated kind by kind.

    Args:
        work: kind -> number of pieces to do.
        stream: Stream to write to; None is standard error.
        workers: Number of pieces that are worked on at a time.
    """

    def __init__(self, work: Mapping[str, int], stream: TextIO | None = None, workers: int = 1) -> None:
        self._workers = workers
        self._left = Counter(work)
        self._total = sum(work.values())
        self._spent: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._stream = stream or sys.stderr
        self._last_line = time.monotonic()
        self._bar: tqdm | None = None
        if self._total and self._stream.isatty():
            layout = "{desc} {bar} {n_fmt}/{total_fmt} [{elapsed}] {postfix}"
            self._bar = tqdm(total=self._total, file=self._stream, bar_format=layout, dynamic_ncols=True)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def starts(self, what: str) -> None:
        """Say what is being worked on."""
        if self._bar is not None:
            self._bar.set_description_str(what[:44].ljust(44))

    def done(self, kind: str, seconds: float) -> None:
        """Count one finished piece."""
        self._left[kind] -= 1
        self._done[kind] += 1
        self._spent[kind] += seconds  # type: ignore[assignment]  # Counter adds floats as well
        if self._bar is not None:
            self._bar.set_postfix_str(self.time_left(), refresh=False)
            self._bar.update()
        elif time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            print(f"{sum(self._done.values())}/{self._total} done, {self.time_left()}", file=self._stream, flush=True)

    def seconds_left(self) -> tuple[float, bool]:
        """Mean duration of each kind times what is left of it, and whether that is all: a kind never seen counts 0.

        Workers share what is left, as if it could be parted at will.
        """
        left = {kind: count for kind, count in self._left.items() if count > 0}
        known = sum(count * self._spent[kind] / self._done[kind] for kind, count in left.items() if kind in self._done)
        return known / self._workers, all(kind in self._done for kind in left)

    def time_left(self) -> str:
        """The estimate in words."""
        seconds, complete = self.seconds_left()
        minutes, rest = divmod(round(seconds), 60)
        words = f"{minutes} min {rest:02d} s left" if minutes else f"{rest} s left"
        return f"about {words}" if complete else f"more than {words}"

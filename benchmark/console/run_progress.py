"""Show progress and time left: on a terminal as one bar, elsewhere as a line now and then."""

import sys
import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

_LINE_EVERY_S = 20.0


class Progress:
    """Counter of finished work. Kinds differ a thousandfold in cost, so the time left is estimated kind by kind.

    `work` is the number of pieces by kind, such as fits of one method. Of them `workers` are in work at a time. Without
    a stream it writes to standard error.
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
        """Show the piece of work that starts."""
        if self._bar is not None:
            self._bar.set_description_str(what[:44].ljust(44))

    def done(self, kind: str, seconds: float) -> None:
        """Count one finished piece."""
        self._left[kind] -= 1
        self._done[kind] += 1
        self._spent[kind] += seconds  # type: ignore[assignment]  # a Counter can add floats, too
        if self._bar is not None:
            self._bar.set_postfix_str(self.time_left(), refresh=False)
            self._bar.update()
        elif time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            print(f"{sum(self._done.values())}/{self._total} done, {self.time_left()}", file=self._stream, flush=True)

    def seconds_left(self) -> tuple[float, bool]:
        """Estimate the seconds left: number of remaining pieces times mean duration, summed over kinds.

        Returns:
            Seconds, as if the remaining work could be divided evenly among the workers; and True if every remaining
            kind has been measured. A kind that has not counts 0.
        """
        left = {kind: count for kind, count in self._left.items() if count > 0}
        known = sum(count * self._spent[kind] / self._done[kind] for kind, count in left.items() if kind in self._done)
        return known / self._workers, all(kind in self._done for kind in left)

    def time_left(self) -> str:
        """Time left, in words."""
        seconds, complete = self.seconds_left()
        minutes, rest = divmod(round(seconds), 60)
        words = f"{minutes} min {rest:02d} s left" if minutes else f"{rest} s left"
        return f"about {words}" if complete else f"more than {words}"

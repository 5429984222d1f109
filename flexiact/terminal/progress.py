"""Progress bars: count a network's forward calls, or the items of a loop, and estimate the time left."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO, TypeVar

from torch import nn
from tqdm import tqdm

Item = TypeVar("Item")

LINE_EVERY_S = 20.0
"""Interval between printed lines where a bar cannot be drawn."""


@contextmanager
def steps_shown(network: nn.Module, total: int, label: str, stream: TextIO | None = None) -> Iterator[None]:
    """Count each call of a network as one step of `total`, and show the estimated time left.

    A terminal shows a bar; other streams get a line every `LINE_EVERY_S`. The stream is standard error by default.
    """
    with _counter(total, 0, label, stream) as count, network.register_forward_hook(lambda *_: count()):
        yield


def counted(
    items: Iterable[Item], total: int, label: str, *, first: int = 0, stream: TextIO | None = None
) -> Iterator[Item]:
    """Yield items, `total` in all and `first` done before, and show the estimated time left as `steps_shown` does."""
    with _counter(total, first, label, stream) as count:
        for item in items:
            yield item
            count()


@contextmanager
def _counter(total: int, first: int, label: str, stream: TextIO | None) -> Iterator[Callable[[], None]]:
    """A function to call after each step."""
    stream = stream or sys.stderr
    bar = tqdm(total=total, initial=first, desc=label, file=stream, delay=2, leave=False) if stream.isatty() else None
    start = last = time.monotonic()
    taken = first

    def count() -> None:
        nonlocal taken, last
        taken, now = taken + 1, time.monotonic()
        if bar is not None:
            bar.update()
        elif now - last >= LINE_EVERY_S:
            last = now
            left = (now - start) / (taken - first) * (total - taken)
            print(f"{label}: step {taken} of {total}, about {in_words(left)} left", file=stream, flush=True)

    try:
        yield count
    finally:
        if bar is not None:
            bar.close()


def in_words(seconds: float) -> str:
    """A duration for people: `4.2 s`, `3 min 05 s` or `2 h 10 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"

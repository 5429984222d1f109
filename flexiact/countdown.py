"""How long the steps of a model will go on, shown without the loop that takes them knowing of it."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from torch import nn
from tqdm import tqdm

LINE_EVERY_S = 20.0
"""Where a bar cannot be drawn, a line is printed this often."""


@contextmanager
def steps_shown(network: nn.Module, total: int, label: str, stream: TextIO | None = None) -> Iterator[None]:
    """Count each call of a network as one step of `total`, and say how long the rest will take.

    On a terminal this is a bar, elsewhere a line every `LINE_EVERY_S`.

    Args:
        network: called once a step; nothing of this stays on it.
        total: steps that will be taken.
        label: what they are for.
        stream: where to show it; standard error when None.
    """
    stream = stream or sys.stderr
    bar = tqdm(total=total, desc=label, file=stream, delay=2, leave=False) if stream.isatty() else None
    start = last = time.monotonic()
    taken = 0

    def step(*_: Any) -> None:
        nonlocal taken, last
        taken, now = taken + 1, time.monotonic()
        if bar is not None:
            bar.update()
        elif now - last >= LINE_EVERY_S:
            last = now
            left = (now - start) / taken * (total - taken)
            print(f"{label}: step {taken} of {total}, about {in_words(left)} left", file=stream, flush=True)

    hook = network.register_forward_hook(step)
    try:
        yield
    finally:
        hook.remove()
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

"""End a run between two videos when the user or the system asks for it, instead of in the middle of one."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

ASKS = (signal.SIGINT, signal.SIGTERM)
"""Signals that ask for the end: Ctrl-C, and what schedulers of clusters send before they kill."""

Asked = Callable[[], int]
"""Function that returns the number of the signal that asked for the end; 0 while none did."""


@contextmanager
def until_asked() -> Iterator[Asked]:
    """Let the first signal of `ASKS` set a mark and the second end the process at once.

    Outside the main thread, where Python hears no signals, the mark is never set.
    """
    got: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        if got:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        got.append(number)
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"\nstops after the videos in work (again: now)\n")

    with _handled(hear):
        yield lambda: got[0] if got else 0


def unheard() -> AbstractContextManager[None]:
    """Hide the signals of `ASKS` from processes that start in this block, which their parent ends."""
    return _handled(signal.SIG_IGN)


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> Iterator[None]:
    """Handle the signals of `ASKS` by this handler; outside the main thread nothing is changed, since nothing may."""
    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in ASKS} if here else {}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
